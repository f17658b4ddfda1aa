"""Graphs in 8-bit integers: which products, that no row looks at the others, and that nothing is said."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from app.inference.session import Session
from tests.conftest import MODELS, Pixels
from training.errors import ReductionRefused
from training.reducing.int8 import quantize_products

QUANTIZED = {"DequantizeLinear", "QuantizeLinear"}


def model(half: str, name: str = "mnist-2d/2") -> onnx.ModelProto:
    return onnx.load(MODELS / name / f"{half}.onnx")


def run(loaded: onnx.ModelProto, name: str, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    return Session(loaded.SerializeToString(), name="tried").run({name: rows})


@pytest.fixture(scope="module")
def encoder(digits: Pixels) -> onnx.ModelProto:
    return quantize_products(model("encoder"), "encoder.onnx", digits[:200, None])


def test_a_row_is_the_same_alone_and_in_a_batch(encoder: onnx.ModelProto, digits: Pixels) -> None:
    """Which ranges of each batch, as dynamic quantization has them, would not give."""
    together = run(encoder, "image", digits[200:231, None])
    for row in (0, 13, 30):
        alone = run(encoder, "image", digits[200 + row : 201 + row, None])
        assert all((alone[name][0] == together[name][row]).all() for name in ("mean", "log_std"))


def test_heads_may_give_more_than_the_calibration_saw(encoder: onnx.ModelProto) -> None:
    made = {output: node.op_type for node in encoder.graph.node for output in node.output}
    assert {made["mean"], made["log_std"]} == {"Gemm"}
    sources = {node.output[0]: node for node in encoder.graph.node}
    heads = [sources[name] for name in ("mean", "log_std")]
    for head in heads:
        assert head.input[1] in {tensor.name for tensor in encoder.graph.initializer}, "its weights are as they were"


def test_latents_may_be_further_out_than_the_calibration_saw() -> None:
    latents = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    decoder = quantize_products(model("decoder"), "decoder.onnx", latents)
    first = next(node for node in decoder.graph.node if node.op_type == "Gemm")
    assert first.input[0] == "latent"
    assert (run(decoder, "latent", latents * 3)["image"] != run(decoder, "latent", latents)["image"]).any()


def test_it_is_near_the_original(encoder: onnx.ModelProto, digits: Pixels) -> None:
    exact, given = (run(it, "image", digits[200:, None]) for it in (model("encoder"), encoder))
    assert np.abs(exact["mean"] - given["mean"]).max() < 0.5
    assert sum(node.op_type in QUANTIZED for node in encoder.graph.node) > 10
    assert len(encoder.SerializeToString()) < 0.3 * len(model("encoder").SerializeToString())


def test_there_must_be_something_to_reduce(digits: Pixels) -> None:
    bare = model("encoder")
    kept = [node for node in bare.graph.node if node.op_type in ("Cast", "Div", "Mul", "Sub")][:4]
    del bare.graph.node[:]
    bare.graph.node.extend(kept)
    with pytest.raises(ReductionRefused, match=r"encoder\.onnx has no products between"):
        quantize_products(bare, "encoder.onnx", digits[:2, None])


def test_nothing_is_said(digits: Pixels, capfd: pytest.CaptureFixture[str]) -> None:
    quantize_products(model("encoder"), "encoder.onnx", digits[:20, None])
    assert capfd.readouterr() == ("", "")
