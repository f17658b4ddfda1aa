"""Remove random operators from a foreign graph: a bundle's graphs have none, because the server draws with a seed.

Many encoders were exported with the reparameterization z = mean + std * eps inside. If the graph has that form, its two
parameters become the outputs in place of the draw.
"""

import onnx

from training.errors import ImportRefused
from training.importing.onnx_edits.decoder_outputs import SHAPE_OPERATORS
from training.onnx_graph import ancestors, is_random, keep_outputs

PARAMETERS = ("source_mean", "source_std")
"""Names of the outputs that replace a draw."""


def remove_random_operators(model: onnx.ModelProto, name: str, *, is_encoder: bool) -> onnx.ModelProto:
    """Remove the outputs that depend on random numbers. If all outputs do, replace the draw by its parameters.

    Raises:
        ImportRefused: a decoder draws, or an encoder draws in another form.
    """
    graph = model.graph
    random = [node for node in graph.node if is_random(node)]
    if not random:
        return model
    outputs = [output.name for output in graph.output]
    deterministic = [name for name in outputs if not any(map(is_random, ancestors(graph, [name])))]
    if deterministic:
        keep_outputs(graph, deterministic)
        return model
    parameters = _find_parameters(graph, random[0]) if is_encoder and len(random) == 1 else None
    if parameters is None:
        raise ImportRefused(
            f"{name} draws random numbers, by `{random[0].op_type}`: export it so that it gives the mean and the "
            "variance instead of a draw"
        )
    for output, tensor in zip(PARAMETERS, parameters, strict=True):
        graph.node.append(onnx.helper.make_node("Identity", [tensor], [output]))
    keep_outputs(graph, list(PARAMETERS))
    return model


def _find_parameters(graph: onnx.GraphProto, random: onnx.NodeProto) -> tuple[str, str] | None:
    """Names of mean and std in mean + std * eps, where `random` draws eps; None if the graph is not of that form."""
    product = _find_consumer(graph, random.output[0], "Mul")
    total = product and _find_consumer(graph, product[0], "Add")
    return (total[1], product[1]) if product and total else None


def _find_consumer(graph: onnx.GraphProto, tensor: str, operator: str) -> tuple[str, str] | None:
    """Output and other operand of the only node that reads a tensor; None if its operator is another."""
    consumers = [node for node in graph.node if tensor in node.input]
    if len(consumers) != 1:
        return None
    (node,) = consumers
    if node.op_type in SHAPE_OPERATORS:
        return _find_consumer(graph, node.output[0], operator)
    others = [name for name in node.input if name != tensor]
    return (node.output[0], others[0]) if node.op_type == operator and len(others) == 1 else None
