"""ONNX models that multiply 8-bit integers, by ONNX Runtime's static quantization.

Ranges are those of calibration rows. Dynamic quantization, which takes those of each batch, would let a row's answer
depend on the others of its batch. Weights have 7 bits: 8 overflow in the kernels of processors without VNNI, so that
what was measured on one machine would not hold on the next.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from training.errors import ReductionRefused
from training.reducing.nodes import between

QUANTIZED = ["Conv", "Gemm", "MatMul"]
ROWS = 64
"""Of a run of the calibration, which keeps every tensor of it."""


class _Rows(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, rows: NDArray[Any]) -> None:
        self._batches = iter([{name: rows[start : start + ROWS]} for start in range(0, len(rows), ROWS)])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._batches, None)


def compute_in_integers(model: ModelProto, name: str, rows: NDArray[Any]) -> ModelProto:
    """The model with the products between its ends in integers, calibrated with `rows` of its one input.

    The last products keep float32, because what they give would be bounded by what the calibration saw; and so do the
    first ones of latents, for the same reason. Pixels are bounded anyway.

    Raises:
        ReductionRefused: it has no such products; `name` is what the model is called.
    """
    (input_,) = model.graph.input
    is_encoder = input_.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    after, before = between(model.graph)
    chosen = []
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
        if node.op_type in QUANTIZED and index in before and (is_encoder or index in after):
            chosen.append(node.name)
    if not chosen:
        raise ReductionRefused(f"{name} has no products between its first and its last that could be reduced")
    with TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "quantized.onnx"
        quantize_static(
            onnx.shape_inference.infer_shapes(model),
            path,
            _Rows(input_.name, rows),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=chosen,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back advice to optimise the model first, which would tie it to this version of ONNX Runtime."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
