"""Random operators in a foreign graph. A bundle's graphs have none: the server draws, so that a seed decides.

Many encoders were exported whole, with z = mean + std * eps inside. Where the graph has that form, its two parameters
take the place of the draw.
"""

from dataclasses import dataclass

import onnx

from training.errors import ImportRefused
from training.onnx_graph import is_random, keep, needed

PASSING = ("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze")
"""Operators that may stand between the draw, the product and the sum."""
DRAWN = ("source_mean", "source_std")
"""Names of the outputs that take a draw's place."""


def without_draws(model: onnx.ModelProto, name: str, *, is_encoder: bool) -> onnx.ModelProto:
    """The model without random operators: outputs that need them are dropped, or replaced by what they are drawn from.

    Raises:
        ImportRefused: a decoder that draws, or an encoder that draws in another way.
    """
    graph = model.graph
    random = [node for node in graph.node if is_random(node)]
    if not random:
        return model
    outputs = [output.name for output in graph.output]
    plain = [output for output in outputs if not any(is_random(node) for node in needed(graph, [output]))]
    if plain:
        keep(graph, plain)
        return model
    parameters = _parameters(graph, random) if is_encoder and len(random) == 1 else None
    if parameters is None:
        raise ImportRefused(
            f"{name} draws random numbers, by `{random[0].op_type}`: export it so that it gives the mean and the "
            "variance instead of a draw"
        )
    for output, tensor in zip(DRAWN, (parameters.mean, parameters.std), strict=True):
        graph.node.append(onnx.helper.make_node("Identity", [tensor], [output]))
    keep(graph, list(DRAWN))
    return model


@dataclass(frozen=True)
class _Parameters:
    mean: str
    std: str


def _parameters(graph: onnx.GraphProto, random: list[onnx.NodeProto]) -> _Parameters | None:
    """The tensors of mean + std * eps around the one random node; None if it is not of that form."""
    product = _step(graph, random[0].output[0], "Mul")
    total = product and _step(graph, product[0], "Add")
    return _Parameters(mean=total[1], std=product[1]) if product and total else None


def _step(graph: onnx.GraphProto, tensor: str, operator: str) -> tuple[str, str] | None:
    """Output and other operand of the one node of this operator that reads a tensor."""
    readers = [node for node in graph.node if tensor in node.input]
    if len(readers) == 1 and readers[0].op_type in PASSING:
        return _step(graph, readers[0].output[0], operator)
    if len(readers) != 1 or readers[0].op_type != operator:
        return None
    other = [name for name in readers[0].input if name != tensor]
    return (readers[0].output[0], other[0]) if len(other) == 1 else None
