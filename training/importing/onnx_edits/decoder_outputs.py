"""The decoder's outputs: which one is the image, and where its values come from."""

import math
from collections.abc import Collection

import onnx
from onnx import numpy_helper

from training.errors import ImportRefused
from training.importing.prompt import Ask
from training.importing.source import SourceGraph
from training.onnx_graph import constants_of

SHAPE_OPERATORS = ("Reshape", "Flatten", "Identity", "Cast", "Squeeze", "Unsqueeze")
"""Operators that change neither values nor their order."""


def find_end(graph: SourceGraph, output: int, skipped: Collection[str]) -> tuple[onnx.NodeProto | None, float, float]:
    """The node that produces an output, upstream of clamps and of operators in `skipped`, and the clamps' bounds.

    The node is None if there is none. Without a clamp, the bounds are infinite. An operator is a clamp only if its
    bounds are constant.
    """
    producers = {name: node for node in graph.model.graph.node for name in node.output}
    constants = constants_of(graph.model.graph)
    node, low, high = producers.get(graph.outputs[output]), -math.inf, math.inf
    while node is not None:
        bounds = _bounds(node, constants)
        if bounds is not None:  # a clamp further downstream has the last word
            low, high = (min(max(bound, low), high) for bound in bounds)
        elif node.op_type not in skipped:
            break
        node = producers.get(node.input[0])
    return node, low, high


def _bounds(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> tuple[float, float] | None:
    """Bounds of a node that clamps its first input between constants; None for any other node."""
    given = node.input[1:]
    is_clamp = node.op_type == "Clip" or (node.op_type in ("Max", "Min") and len(given) == 1)
    if not is_clamp or not all(name in constants or not name for name in given):
        return None
    values = [numpy_helper.to_array(constants[name]) if name else None for name in given]
    if any(value is not None and value.size != 1 for value in values):
        return None
    bounds = [None if value is None else float(value.item()) for value in values]
    low, high, *_ = (None, *bounds) if node.op_type == "Min" else (*bounds, None, None)
    return -math.inf if low is None else low, math.inf if high is None else high


def choose_image_output(decoder: SourceGraph, name: str | None, ask: Ask) -> int:
    """Index of the decoder's output that is the image. If there are several and `name` is None, ask.

    Raises:
        ImportRefused: none is called `name`.
        OpenQuestion: there is no terminal to ask at.
    """
    names = decoder.outputs
    if name is None and len(names) > 1:
        name = ask("picture", f"The image among the outputs of {decoder.name}", names)
    if name not in (None, *names):
        raise ImportRefused(f"{decoder.name} has no output of the name in --picture; it has {', '.join(names)}")
    return 0 if name is None else names.index(name)
