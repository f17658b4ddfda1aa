"""The decoder's outputs: which one is the image, and which operator produces it."""

from collections.abc import Collection

import onnx

from training.errors import ImportRefused
from training.importing.source import SourceGraph

SHAPE_OPERATORS = ("Reshape", "Flatten", "Identity", "Cast", "Squeeze", "Unsqueeze")
"""Operators that change neither values nor their order."""


def producer_of(graph: SourceGraph, output: int, skipped: Collection[str]) -> onnx.NodeProto | None:
    """The node that produces an output, upstream of operators named in `skipped`; None if there is none."""
    producers = {name: node for node in graph.model.graph.node for name in node.output}
    node = producers.get(graph.outputs[output])
    while node is not None and node.op_type in skipped:
        node = producers.get(node.input[0])
    return node


def choose_image_output(decoder: SourceGraph, name: str | None) -> int:
    """Index of the decoder's output that is the image.

    Raises:
        ImportRefused: there are several and `name` is None, or none is called `name`.
    """
    names = decoder.outputs
    if name in names:
        return names.index(name)
    if name is None and len(names) == 1:
        return 0
    listed = ", ".join(f"`{output}`" for output in names)
    raise ImportRefused(f"{decoder.name} has the outputs {listed}: say which is the image with --picture")
