"""Where the nodes of an ONNX model stand: before, between or behind its matrix products."""

from collections.abc import Iterator

from onnx import GraphProto, ModelProto, NodeProto

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""What the weights are for, and nearly all of the time."""


def between(graph: GraphProto) -> tuple[set[int], set[int]]:
    """Indices of the nodes that a product stands upstream of, and of those that one stands downstream of."""
    after, fed = set[int](), set[str]()
    for index, node in enumerate(graph.node):  # in topological order, as ONNX has them
        if fed & set(reads(node)):
            after.add(index)
        if index in after or node.op_type in PRODUCTS:
            fed |= set(node.output)
    before, feeding = set[int](), set[str]()
    for index, node in reversed(list(enumerate(graph.node))):
        if feeding & set(node.output):
            before.add(index)
        if index in before or node.op_type in PRODUCTS:
            feeding |= set(reads(node))
    return after, before


def reads(node: NodeProto) -> Iterator[str]:
    """Names that a node reads, those that its subgraphs do included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from reads(inner)
            yield from (output.name for output in graph.output)


def read_anywhere(model: ModelProto) -> set[str]:
    """Names that any node reads, or the model gives."""
    return {name for node in model.graph.node for name in reads(node)} | {out.name for out in model.graph.output}
