"""Make the batch size of a graph dynamic if the export fixed it, and run the original in portions of that size."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from training.importing.source import RunGraph, shape_of
from training.onnx_graph import all_graphs, constants_of


def make_batch_dynamic(model: onnx.ModelProto) -> int | None:
    """Make the batch size of a model dynamic, and return the size that it was fixed at; None if it was dynamic.

    The batch size at the start of a Reshape's constant shape is made dynamic as well. Other operators may depend on the
    size, too: the comparison with the source detects this.
    """
    value = model.graph.input[0]
    rows = shape_of(value)[0] if shape_of(value) else None
    if rows is None:
        return None
    value.type.tensor_type.shape.dim[0].dim_param = "N"
    for part in all_graphs(model.graph):
        del part.value_info[:]  # shapes that are no longer valid
    for output in model.graph.output:
        if shape_of(output)[:1] == (rows,):
            output.type.tensor_type.shape.dim[0].dim_param = "N"
    constants = constants_of(model.graph)
    shapes = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"} & set(constants)
    for name in shapes:
        shape = numpy_helper.to_array(constants[name]).copy()
        if shape.ndim == 1 and shape.size and shape[0] == rows:
            shape[0] = 0 if (shape[1:] == -1).any() else -1  # 0 copies the input's size
            constants[name].CopyFrom(numpy_helper.from_array(shape, constants[name].name))
    return rows


def run_in_portions(run: RunGraph, rows: int | None) -> RunGraph:
    """Make a `run` that takes exactly `rows` rows take any number; the last row is repeated to fill a portion."""
    if rows is None:
        return run

    def run_all(batch: NDArray[Any]) -> list[NDArray[Any]]:
        filled = np.concatenate([batch, np.repeat(batch[-1:], -len(batch) % rows, axis=0)])
        parts = [run(filled[start : start + rows]) for start in range(0, len(filled), rows)]
        return [np.concatenate(outputs)[: len(batch)] for outputs in zip(*parts, strict=True)]

    return run_all
