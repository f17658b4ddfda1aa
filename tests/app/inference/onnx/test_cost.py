"""Graphs whose work is known from the shapes of their inputs, and graphs whose work is not."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from app.inference.onnx.cost import _PLAIN, _SIZES, follows_from_shapes
from app.inference.onnx.graph import read_graph
from tests.conftest import MODELS
from tests.maps import write_maps

node = helper.make_node
CONSTANTS: dict[str, Any] = {
    "zero": np.array(0),
    "one": np.array(1),
    "two": np.array(2),
    "first": np.array([0]),
    "pair": np.array([2]),
    "all": np.array([-1]),
    "plane": np.array([1, 1, 1, 2]),
    "half": np.float32(0.5),
    "yes": np.array(True),
    "ones": np.ones(3, np.int64),
}
COUNT = [
    node("ReduceMax", ["latent"], ["most"], keepdims=0),
    node("Cast", ["most"], ["count"], to=TensorProto.INT64),
    node("Reshape", ["count", "all"], ["counts"]),
]
"""`count`, and the list `counts` with it alone: a whole number that the latents say."""


def model(nodes: list[Any], **options: Any) -> bytes:
    """A model from `latent` `[N, 2]` to `y`, the output of the last node."""
    used = {name for it in nodes for name in it.input}
    weights = [numpy_helper.from_array(np.asarray(it), name) for name, it in CONSTANTS.items() if name in used]
    made = [helper.make_tensor_value_info("latent", TensorProto.FLOAT, ["N", 2])]
    graph = helper.make_graph([*nodes, node("Identity", [nodes[-1].output[0]], ["y"])], "g", made, [], weights)
    graph.output.append(onnx.ValueInfoProto(name="y"))
    options = {"opset_imports": [helper.make_opsetid("", 20)], "ir_version": 10} | options
    content: bytes = helper.make_model(graph, **options).SerializeToString()
    return content


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*/*.onnx")), ids=lambda path: "/".join(path.parts[-3:]))
def test_the_shipped_graphs_may_run_on_the_event_loop(path: Path) -> None:
    assert follows_from_shapes(read_graph(path.read_bytes()))


@pytest.mark.parametrize("size", [None, (16, 24)])
def test_graphs_of_maps_too(tmp_path: Path, size: tuple[int, int] | None) -> None:
    for path in write_maps(tmp_path, size=size).glob("*.onnx"):
        assert follows_from_shapes(read_graph(path.read_bytes()))


BATCH = [node("Shape", ["latent"], ["shape"]), node("Gather", ["shape", "first"], ["rows"])]
KNOWN = {
    "reshaped to the batch": [
        *BATCH,
        node("Concat", ["rows", "all"], ["sizes"], axis=0),
        node("Reshape", ["latent", "sizes"], ["x"]),
    ],
    "expanded to the batch, as PyTorch exports it": [
        *BATCH,
        node("Concat", ["rows", "all"], ["asked"], axis=0),
        node("ConstantOfShape", ["pair"], ["blank"], value=numpy_helper.from_array(np.array([1]))),
        node("Equal", ["asked", "all"], ["follows"]),
        node("Where", ["follows", "blank", "asked"], ["sizes"]),
        node("Expand", ["latent", "sizes"], ["x"]),
    ],
    "counted up to the batch": [
        node("Size", ["latent"], ["size"]),
        node("Div", ["size", "two"], ["rows"]),
        node("Range", ["zero", "rows", "one"], ["x"]),
    ],
    "constants in nodes": [
        node("Constant", [], ["sizes"], value=numpy_helper.from_array(np.array([-1, 1, 2, 1]))),
        node("Reshape", ["latent", "sizes"], ["planes"]),
        node("Resize", ["planes", "", "", "plane"], ["x"], mode="nearest"),
    ],
}


@pytest.mark.parametrize("name", KNOWN)
def test_sizes_that_are_computed_from_shapes_are_known(name: str) -> None:
    content = model(KNOWN[name])
    ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert follows_from_shapes(read_graph(content))


def body(inputs: list[str], outputs: list[str]) -> Any:
    infos = [onnx.ValueInfoProto(name=name) for name in inputs]
    return helper.make_graph(
        [node("Identity", ["yes"], [outputs[0]])], "body", infos, [onnx.ValueInfoProto(name=name) for name in outputs]
    )


UNKNOWN = {
    "Range": [*COUNT, node("Range", ["zero", "count", "one"], ["x"])],
    "Expand": [*COUNT, node("Expand", ["half", "counts"], ["x"])],
    "ConstantOfShape": [*COUNT, node("ConstantOfShape", ["counts"], ["x"])],
    "Tile": [*COUNT, node("Tile", ["pair", "counts"], ["x"])],
    "Reshape": [*COUNT, node("Reshape", ["latent", "counts"], ["x"])],
    "Pad": [*COUNT, node("Concat", ["first", "counts"], ["pads"], axis=0), node("Pad", ["ones", "pads"], ["x"])],
    "Resize to a size": [
        *COUNT,
        node("Concat", ["plane", "counts"], ["long"], axis=0),
        node("Slice", ["long", "one", "all"], ["sizes"]),
        node("Resize", ["latent", "", "", "sizes"], ["x"]),
    ],
    "Resize by a scale": [node("Resize", ["latent", "", "latent"], ["x"])],
    "NonZero": [node("NonZero", ["latent"], ["x"])],
    "TopK": [*COUNT, node("TopK", ["ones", "counts"], ["x", "indices"])],
    "a shape of a part": [
        *COUNT,
        node("Slice", ["ones", "first", "counts"], ["part"]),
        node("Shape", ["part"], ["sizes"]),
        node("Expand", ["half", "sizes"], ["x"]),
    ],
    "Loop": [*COUNT, node("Loop", ["count", "yes"], ["x"], body=body(["i", "going"], ["goes", "out"]))],
    "Scan": [node("Scan", ["latent"], ["x"], num_scan_inputs=1, body=body(["row"], ["out"]))],
    "If": [node("If", ["yes"], ["x"], then_branch=body([], ["a"]), else_branch=body([], ["b"]))],
    "an operator of its own": [node("Add", ["latent", "latent"], ["x"], domain="mine")],
    "an unknown operator": [node("Frobnicate", ["latent"], ["x"])],
    "random numbers": [node("RandomNormal", [], ["x"], shape=[2])],
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_work_that_depends_on_values_is_not_known(name: str) -> None:
    assert not follows_from_shapes(read_graph(model(UNKNOWN[name])))


def test_an_input_is_no_constant_even_if_it_has_a_default() -> None:
    content = onnx.ModelProto.FromString(model([node("ConstantOfShape", ["pair"], ["x"])]))
    assert follows_from_shapes(read_graph(content.SerializeToString()))
    content.graph.input.append(helper.make_tensor_value_info("pair", TensorProto.INT64, [1]))
    assert not follows_from_shapes(read_graph(content.SerializeToString()))


def test_functions_of_a_model_are_not_known() -> None:
    imports = [helper.make_opsetid("", 20)]
    function = helper.make_function("", "Relu", ["a"], ["b"], [node("Neg", ["a"], ["b"])], imports)
    nodes = [node("Relu", ["latent"], ["x"])]
    assert follows_from_shapes(read_graph(model(nodes)))
    assert not follows_from_shapes(read_graph(model(nodes, functions=[function])))


def test_a_graph_in_two_pieces_is_one_graph() -> None:
    plain = onnx.ModelProto.FromString(model([node("Relu", ["latent"], ["x"])]))
    loop = onnx.ModelProto()
    loop.graph.node.append(UNKNOWN["Loop"][-1])
    pieces = plain.SerializeToString() + loop.SerializeToString()  # protobuf merges them
    assert [it.op_type for it in onnx.ModelProto.FromString(pieces).graph.node] == ["Relu", "Identity", "Loop"]
    assert not follows_from_shapes(read_graph(pieces))


def test_what_is_no_model_is_not_known() -> None:
    whole = model([node("Relu", ["latent"], ["x"])])
    for content in (
        b"",
        b"junk",
        b"\x3b",
        whole[:-1],
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\x18\x00\x00\x00ORTM" + bytes(99),
    ):
        assert not follows_from_shapes(read_graph(content))


def test_the_tables_name_operators_and_all_inputs_that_are_sizes() -> None:
    assert not _PLAIN & _SIZES.keys()
    schemas = [it for it in onnx.defs.get_all_schemas_with_history() if it.domain == ""]
    sizes = {"shape", "sizes", "repeats", "axes", "depth", "pads", "starts", "ends", "steps", "K", "scales", "roi"}
    sizes |= {"size", "split", "sequence_lens", "output_shape", "start", "limit", "delta"}
    for name in sorted(_PLAIN | _SIZES.keys()):
        every = [it for it in schemas if it.name == name]
        assert every, name
        for schema in every:
            named = {index for index, it in enumerate(schema.inputs) if it.name in sizes}
            assert named <= set(_SIZES.get(name, ())), (name, schema.since_version)
