"""Walks over an ONNX graph: its tensors, its nodes, what a node reads. Sub-graphs of If, Loop and Scan count."""

from collections.abc import Iterator

import onnx

RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs among a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node, however deep."""
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from all_nodes(inner)


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph, and every graph in it."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from all_graphs(inner)


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every stored tensor: weights, and constants of nodes."""
    for part in all_graphs(graph):
        yield from part.initializer
        for sparse in part.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in part.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, those that its sub-graphs take from outside with them."""
    names = set(node.input)
    for inner in subgraphs(node):
        for part in inner.node:
            names |= reads(part)
        names |= {output.name for output in inner.output}
    return names - {""}


def is_random(node: onnx.NodeProto) -> bool:
    """Whether a node draws: a random operator, a Dropout that is told to train, or what holds such a node."""
    if node.op_type in RANDOM or (node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] != ""):
        return True
    return any(is_random(part) for inner in subgraphs(node) for part in inner.node)


def needed(graph: onnx.GraphProto, outputs: list[str]) -> list[onnx.NodeProto]:
    """The nodes that some tensors are made of, in the graph's order."""
    wanted, kept = set(outputs), []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= reads(node)
    return kept[::-1]


def keep(graph: onnx.GraphProto, outputs: list[str]) -> None:
    """Make some tensors the only outputs, and drop what nothing needs any more."""
    told = {value.name: value for value in (*graph.output, *graph.value_info)}
    values = [told.get(name) or onnx.ValueInfoProto(name=name) for name in outputs]
    nodes = needed(graph, outputs)
    used = {name for node in nodes for name in reads(node)} | set(outputs)
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    for part, kept in ((graph.output, values), (graph.node, nodes), (graph.initializer, weights)):
        copies = [_copy(message) for message in kept]
        del part[:]
        part.extend(copies)


def _copy(message: onnx.NodeProto) -> onnx.NodeProto:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
