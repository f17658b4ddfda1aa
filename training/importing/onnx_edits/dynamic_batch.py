"""Graphs whose batch was frozen when they were exported: run as they are, and freed by an edit."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from training.importing.source import Run, shape_of
from training.onnx_graph import all_graphs


def free_batch(model: onnx.ModelProto) -> int | None:
    """Free the batch of a model, and return what it was fixed at: None where it was free.

    A Reshape to a constant shape that begins with the batch is told to keep it instead. Whether that was all is for
    the comparison with the source to say, row by row.
    """
    value = model.graph.input[0]
    rows = shape_of(value)[0] if shape_of(value) else None
    if rows is None:
        return None
    value.type.tensor_type.shape.dim[0].dim_param = "N"
    constants = _constants(model.graph)
    for part in all_graphs(model.graph):
        del part.value_info[:]
        for output in part.output if part is model.graph else ():
            if shape_of(output)[:1] == (rows,):
                output.type.tensor_type.shape.dim[0].dim_param = "N"
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"} & set(constants)
    for name in shapes:
        shape = numpy_helper.to_array(constants[name]).copy()
        if shape.ndim == 1 and shape.size and shape[0] == rows:
            shape[0] = 0 if (shape[1:] == -1).any() else -1  # 0 copies the input's size
            constants[name].CopyFrom(numpy_helper.from_array(shape, constants[name].name))
    return rows


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """The constant tensors by the names that nodes read them by."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found |= {name: part.t for name in node.output for part in node.attribute if part.name == "value"}
    return found


def in_batches(run: Run, rows: int | None) -> Run:
    """`run` for any number of rows, where it takes `rows` at a time: the last of a batch are repeated to fill it."""
    if rows is None:
        return run

    def run_all(batch: NDArray[Any]) -> list[NDArray[Any]]:
        filled = np.concatenate([batch, np.repeat(batch[-1:], -len(batch) % rows, axis=0)])
        parts = [run(filled[start : start + rows]) for start in range(0, len(filled), rows)]
        return [np.concatenate(outputs)[: len(batch)] for outputs in zip(*parts, strict=True)]

    return run_all
