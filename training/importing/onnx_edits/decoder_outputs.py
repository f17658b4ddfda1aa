"""The decoder's outputs: which one is the image, and where its values come from."""

import math
from typing import NamedTuple

import onnx
from onnx import numpy_helper

from training.errors import ImportRefused
from training.importing.prompt import Ask
from training.importing.source import SourceGraph
from training.onnx_graph import constants_of

SHAPE_OPERATORS = ("Reshape", "Flatten", "Identity", "Cast", "Squeeze", "Unsqueeze")
"""Operators that change neither values nor their order."""


class End(NamedTuple):
    """Where the values of an output come from."""

    node: onnx.NodeProto | None
    """The node that computes them, upstream of clamps, casts and `moves`; None if there is none."""
    low: float
    high: float
    """Bounds of the clamps, infinite without one."""
    moves: list[onnx.NodeProto]
    """Operators downstream of `node` that reshape or transpose the values, in the order of the graph."""


def find_end(graph: SourceGraph, output: int) -> End:
    """Find the node that computes an output. An operator is a clamp only if its bounds are constant."""
    producers = {name: node for node in graph.model.graph.node for name in node.output}
    constants = constants_of(graph.model.graph)
    node, low, high, moves = producers.get(graph.outputs[output]), -math.inf, math.inf, list[onnx.NodeProto]()
    while node is not None:
        bounds = _bounds(node, constants)
        if bounds is not None:  # a clamp further downstream has the last word
            low, high = (min(max(bound, low), high) for bound in bounds)
        elif node.op_type not in (*SHAPE_OPERATORS, "Transpose"):
            break
        elif node.op_type not in ("Identity", "Cast"):
            moves.insert(0, node)
        node = producers.get(node.input[0])
    return End(node, low, high, moves)


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
