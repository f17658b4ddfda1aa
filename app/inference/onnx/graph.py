"""The nodes of an ONNX model, read from its bytes."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

# Field numbers of onnx.proto.
GRAPH, _FUNCTIONS = 7, 25
_NODE, _INITIALIZER, _INPUT, OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _OPERATOR, _DOMAIN = 1, 2, 4, 7
NAME, _INITIALIZER_NAME = 1, 8
_TYPE, _TENSOR_TYPE, _ELEMENT_TYPE = 2, 1, 1

_ONNX_DOMAINS = ("", "ai.onnx")
_FLOATS = (1, 10, 11, 16)
"""TensorProto's numbers of float, float16, double and bfloat16."""

_Field = tuple[int, memoryview]


class Node(NamedTuple):
    """One node, and the names of the values that it reads and writes."""

    operator: str
    """Operator of ONNX; "" if it belongs to another domain."""
    inputs: list[str]
    outputs: list[str]


class Graph(NamedTuple):
    """A model's graph, without those inside its nodes."""

    nodes: list[Node]
    known: set[str]
    """Values that are constants, or computed from constants and the shapes of other values. "" is an omitted input."""
    outputs: list[str]
    integers: list[str]
    """Outputs that are not floats."""
    has_functions: bool
    """Whether the model defines operators of its own."""


def read_graph(model: bytes) -> Graph:
    """The graph of an ONNX model; it has no nodes if the bytes are no model."""
    try:
        return _read(model)
    except (ValueError, IndexError):
        return Graph([], set(), [], [], has_functions=False)


def _read(model: bytes) -> Graph:
    fields = list(_fields(memoryview(model)))
    parts = [field for number, part in fields if number == GRAPH for field in _fields(part)]
    nodes = [_node(list(_fields(part))) for number, part in parts if number == _NODE]
    inputs, constants = (
        {name for found, part in parts if found == number for name in _texts(_fields(part), field)}
        for number, field in ((_INPUT, NAME), (_INITIALIZER, _INITIALIZER_NAME))
    )
    known = constants - inputs | {""}
    for node in nodes:
        if node.operator in ("Shape", "Size") or known.issuperset(node.inputs):
            known.update(node.outputs)
    outputs = [list(_fields(part)) for number, part in parts if number == OUTPUT]
    names, integers = (
        [name for info in infos for name in _texts(info, NAME)]
        for infos in (outputs, [info for info in outputs if not _is_float(info)])
    )
    return Graph(nodes, known, names, integers, any(number == _FUNCTIONS for number, _ in fields))


def _is_float(info: list[_Field]) -> bool:
    types = [kind for number, part in info if number == _TYPE for kind in _fields(part)]
    elements = [field for number, part in types if number == _TENSOR_TYPE for field in _fields(part)]
    return any(number == _ELEMENT_TYPE and _varint(part, 0)[0] in _FLOATS for number, part in elements)


def _node(fields: list[_Field]) -> Node:
    operator, domain = (["", *_texts(fields, number)][-1] for number in (_OPERATOR, _DOMAIN))
    return Node(operator if domain in _ONNX_DOMAINS else "", _texts(fields, _NODE_INPUT), _texts(fields, _NODE_OUTPUT))


def _texts(fields: Iterable[_Field], number: int) -> list[str]:
    return [bytes(content).decode() for found, content in fields if found == number]


def _fields(message: memoryview) -> Iterator[_Field]:
    """Number and content of each field of a protobuf message.

    Raises:
        ValueError, IndexError: it is no such message.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        start, kind = at, key & 7
        if kind == 0:
            _, at = _varint(message, at)
        elif kind == 2:
            length, start = _varint(message, at)
            at = start + length
        elif kind in (1, 5):
            at = start = at + (8 if kind == 1 else 4)
        else:
            raise ValueError("no field of ONNX has this type")
        if at > len(message):
            raise ValueError("the message is cut off")
        yield key >> 3, message[start:at]


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, and the position after it."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
