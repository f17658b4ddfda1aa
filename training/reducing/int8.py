"""Conversion of ONNX models to 8-bit integers, by ONNX Runtime's static quantization.

Value ranges come from calibration rows. Dynamic quantization would take them from each batch, so a row's result would
depend on the other rows. Weights have 7 bits, because 8 bits overflow in the kernels of processors without VNNI: the
measured change would not hold on other machines.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from training.errors import ReductionRefused
from training.onnx_graph import beside_products

QUANTIZED = ["Conv", "Gemm", "MatMul"]
CALIBRATION_ROWS = 64
"""Rows of one calibration run, which keeps all its tensors in memory."""


class _CalibrationRows(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, rows: NDArray[Any]) -> None:
        starts = range(0, len(rows), CALIBRATION_ROWS)
        self._batches = iter([{name: rows[start : start + CALIBRATION_ROWS]} for start in starts])

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._batches, None)


def quantize_products(model: ModelProto, name: str, rows: NDArray[Any]) -> ModelProto:
    """Quantize the inner matrix products of a model, calibrated with `rows` of its only input.

    The last products stay float32, because calibration would bound their results. A decoder's first products stay
    float32, because it would bound the latents. An encoder's are quantized: pixels are bounded anyway.

    Raises:
        ReductionRefused: it has no such products; `name` is the model's name in messages.
    """
    (input_,) = model.graph.input
    is_encoder = input_.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    downstream, upstream = beside_products(model.graph)
    chosen = []
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
        if node.op_type in QUANTIZED and index in upstream and (is_encoder or index in downstream):
            chosen.append(node.name)
    if not chosen:
        raise ReductionRefused(f"{name} has no products between its first and its last that could be reduced")
    model = onnx.shape_inference.infer_shapes(model)
    # Without this mark ONNX Runtime advises to optimize the model first, which would tie it to this ONNX Runtime.
    add_pre_process_metadata(model)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        quantize_static(
            model,
            path,
            _CalibrationRows(input_.name, rows),
            quant_format=QuantFormat.QDQ,
            nodes_to_quantize=chosen,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantized = onnx.load(path)
    del quantized.metadata_props[:]  # the mark, which is not true
    return quantized
