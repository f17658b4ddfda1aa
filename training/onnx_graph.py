"""Traverse and edit ONNX graphs. The subgraphs of If, Loop and Scan nodes count as parts of the graph."""

from collections.abc import Iterable, Iterator
from typing import Any

from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto

RANDOM_OPERATORS = {
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"),
}
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators that multiply by weights. They take nearly all of the run time."""


def subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs among a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and all its subgraphs, at any depth."""
    yield graph
    for node in graph.node:
        for subgraph in subgraphs(node):
            yield from all_graphs(subgraph)


def all_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """The stored tensors of the graph and of all its subgraphs: weights, and constants in attributes of nodes."""
    for part in all_graphs(graph):
        yield from part.initializer
        for sparse in part.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in part.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def inputs_of(node: NodeProto) -> set[str]:
    """Names of the tensors that a node reads, in its subgraphs as well."""
    names = set(node.input)
    for graph in subgraphs(node):
        names = names.union(*map(inputs_of, graph.node), (output.name for output in graph.output))
    return names - {""}


def is_random(node: NodeProto) -> bool:
    """Whether a node or its subgraphs draw random numbers. Dropout does so only in training mode."""
    if node.op_type in RANDOM_OPERATORS or (node.op_type == "Dropout" and len(node.input) > 2 and node.input[2] != ""):
        return True
    return any(is_random(inner) for graph in subgraphs(node) for inner in graph.node)


def ancestors(graph: GraphProto, tensors: Iterable[str]) -> list[NodeProto]:
    """The nodes that some tensors are computed from, in the order of the graph."""
    wanted, kept = set(tensors), []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= inputs_of(node)
    return kept[::-1]


def beside_products(graph: GraphProto) -> tuple[set[int], set[int]]:
    """Indices of the nodes downstream of a matrix product, and of the nodes upstream of one."""
    downstream, computed = set[int](), set[str]()
    for index, node in enumerate(graph.node):  # ONNX demands topological order
        if computed & inputs_of(node):
            downstream.add(index)
        if index in downstream or node.op_type in PRODUCTS:
            computed |= set(node.output)
    upstream, used = set[int](), set[str]()
    for index, node in reversed(list(enumerate(graph.node))):
        if used & set(node.output):
            upstream.add(index)
        if index in upstream or node.op_type in PRODUCTS:
            used |= inputs_of(node)
    return downstream, upstream


def keep_outputs(graph: GraphProto, outputs: list[str]) -> None:
    """Make some tensors the only outputs of a graph, and remove the nodes and weights that this leaves unused."""
    known = {value.name: value for value in (*graph.output, *graph.value_info)}
    replace_field(graph.output, [known.get(name) or ValueInfoProto(name=name) for name in outputs])
    replace_field(graph.node, ancestors(graph, outputs))
    remove_unused_weights(graph)


def remove_unused_weights(graph: GraphProto) -> None:
    """Remove the weights that neither a node nor an output names."""
    used = set[str]().union(*map(inputs_of, graph.node), (output.name for output in graph.output))
    replace_field(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])


def replace_field(field: Any, messages: Iterable[Any]) -> None:
    """Replace the content of a repeated field; `messages` may be messages of that field."""
    copies = [type(message).FromString(message.SerializeToString()) for message in messages]
    del field[:]
    field.extend(copies)


def constants_of(graph: GraphProto) -> dict[str, TensorProto]:
    """The constant tensors, by the names under which nodes read them."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants |= {name: part.t for name in node.output for part in node.attribute if part.name == "value"}
    return constants
