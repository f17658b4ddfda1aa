"""Where a decoder's graph ends: which output is the picture, and which operator it comes from."""

from collections.abc import Collection

import onnx

from training.errors import ImportRefused
from training.importing.source import Half

PASSING = ("Reshape", "Flatten", "Identity", "Cast", "Squeeze", "Unsqueeze")
"""Operators that change neither values nor their order."""


def ending(half: Half, output: int, passing: Collection[str]) -> onnx.NodeProto | None:
    """The node that an output comes from, those that `passing` names left out; None if it comes from none."""
    made = {name: node for node in half.model.graph.node for name in node.output}
    node = made.get(half.outputs[output])
    while node is not None and node.op_type in passing:
        node = made.get(node.input[0])
    return node


def choose_picture(decoder: Half, name: str | None) -> int:
    """The number of the decoder's output that is the picture.

    Raises:
        ImportRefused: there are several and none was named, or none has the name.
    """
    names = decoder.outputs
    if name in names:
        return names.index(name)
    if name is None and len(names) == 1:
        return 0
    listed = ", ".join(f"`{output}`" for output in names)
    raise ImportRefused(f"{decoder.name} has the outputs {listed}: say which is the picture with --picture")
