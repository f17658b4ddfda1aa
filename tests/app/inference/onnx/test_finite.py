"""The float values behind an image of integers, which a session looks at."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.errors import NotFinite
from app.inference.onnx.finite import _HIDING, _KEEPING, hidden_values, with_outputs
from app.inference.onnx.graph import read_graph
from app.inference.session import Session
from tests.conftest import MODELS

node = helper.make_node
LONG = "long name " + 200 * "x"
CONSTANTS: dict[str, Any] = {
    "zero": np.float32(0),
    "half": np.float32(0.5),
    "one": np.float32(1),
    "white": np.float32(255),
    "palette": np.arange(0, 20, 5, dtype=np.uint8),
    "step": np.float32(0.1),
    "origin": np.uint8(0),
    LONG: np.float32(1),
}
SIGMOID = [node("Sigmoid", ["x"], ["p"]), node("Mul", ["white", "p"], ["levels"])]
TAIL = [node("Round", ["levels"], ["r"]), node("Clip", ["r", "zero", "white"], ["c"])]
PIXELS = node("Cast", ["c"], ["image"], to=TensorProto.UINT8)
TAILS: dict[str, tuple[list[Any], str]] = {
    "as this server's export": ([*SIGMOID, *TAIL, PIXELS], "x"),
    "clipped": ([node("Mul", ["x", "white"], ["levels"]), *TAIL, PIXELS], "r"),
    "cast alone": ([node("Cast", ["x"], ["image"], to=TensorProto.UINT8)], "x"),
    "in halves": (
        [
            node("Cast", ["x"], ["short"], to=TensorProto.FLOAT16),
            node("Cast", ["short"], ["image"], to=TensorProto.UINT8),
        ],
        "x",
    ),
    "by way of int32": (
        [*SIGMOID, *TAIL, node("Cast", ["c"], ["i"], to=TensorProto.INT32), node("Cast", ["i"], ["image"], to=2)],
        "x",
    ),
    "with axes moved": ([*SIGMOID, *TAIL, node("Transpose", ["c"], ["t"]), node("Cast", ["t"], ["image"], to=2)], "x"),
    "of a quantizer": ([node("QuantizeLinear", ["x", "step", "origin"], ["image"])], "x"),
    "of a palette": ([node("ArgMax", ["x"], ["i"], axis=1), node("Gather", ["palette", "i"], ["image"])], "x"),
    "of a threshold": ([node("Greater", ["x", "half"], ["b"]), node("Cast", ["b"], ["image"], to=2)], "x"),
    "of two values": (
        [node("Sigmoid", ["x"], ["gate"]), node("Mul", ["x", "gate"], ["levels"]), *TAIL, PIXELS],
        "r",
    ),
    "of a long name": (
        [node("Mul", ["x", LONG], [f"{LONG}2"]), node("Cast", [f"{LONG}2"], ["image"], to=2)],
        f"{LONG}2",
    ),
}


def model(tail: list[Any]) -> bytes:
    """A model from latents `[N, 2]` to `x`, the product of their roots and 3e38 or 1, and to an image of it."""
    nodes = [node("Sqrt", ["latent"], ["root"]), node("MatMul", ["root", "weights"], ["x"]), *tail]
    used = {name for it in nodes for name in it.input}
    arrays = CONSTANTS | {"weights": np.float32([[3e38, 0], [0, 1]])}
    weights = [numpy_helper.from_array(np.asarray(it), name) for name, it in arrays.items() if name in used]
    made, image = ("latent", TensorProto.FLOAT, ["N", 2]), ("image", TensorProto.UINT8, None)
    infos = [[helper.make_tensor_value_info(*it)] for it in (made, image)]
    body = helper.make_graph(nodes, "g", *infos, weights)
    content: bytes = helper.make_model(
        body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()
    return content


@pytest.mark.parametrize("name", TAILS)
@pytest.mark.parametrize("bad", [[-1.0, 0.0], [0.0, -1.0], [4.0, 0.0]], ids=["NaN", "NaN on the right", "infinity"])
def test_no_image_hides_a_value_that_is_not_finite(name: str, bad: list[float]) -> None:
    tail, hidden = TAILS[name]
    assert hidden_values(read_graph(model(tail))) == {"image": hidden}
    session = Session(model(tail), name="decoder")
    assert session.outputs == ["image"]
    good = [0.0, 0.25]
    assert list(session.run({"latent": np.float32([good])})) == ["image"]
    with pytest.raises(NotFinite, match="decoder failed"):
        session.run({"latent": np.float32([good, bad])})


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*/decoder.onnx")), ids=lambda path: "/".join(path.parts[-3:-1]))
def test_the_shipped_decoders_are_looked_at(path: Path) -> None:
    (hidden,) = hidden_values(read_graph(path.read_bytes())).values()
    assert hidden == ("round_1" if path.parts[-3] == "emoji" else "logits")


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*/encoder.onnx")), ids=lambda path: "/".join(path.parts[-3:-1]))
def test_floats_hide_nothing(path: Path) -> None:
    assert hidden_values(read_graph(path.read_bytes())) == {}


def test_the_input_itself_is_finite() -> None:
    tail = [node("Clip", ["latent", "zero", "white"], ["c"]), PIXELS]
    assert hidden_values(read_graph(model(tail))) == {"image": "c"}


def test_a_model_with_more_outputs_is_the_same_model() -> None:
    content = (MODELS / "emoji" / "1" / "decoder.onnx").read_bytes()
    assert with_outputs(content, set()) is content
    before, after = (onnx.ModelProto.FromString(it) for it in (content, with_outputs(content, {"b", "a"})))
    assert [it.name for it in after.graph.output] == [*(it.name for it in before.graph.output), "a", "b"]
    del after.graph.output[-2:]
    assert after == before


def test_the_tables_name_operators() -> None:
    assert not _HIDING & _KEEPING
    names = {it.name for it in onnx.defs.get_all_schemas_with_history() if it.domain == ""}
    assert names >= _HIDING | _KEEPING
