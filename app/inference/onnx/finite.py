"""The values behind a graph's integers, which show whether all that the graph computed is finite.

A cast to uint8 makes a pixel even of NaN, and the clip or sigmoid before it one of infinity. The path is followed back
from an output to the value before the first operator that hides anything, and that value becomes an output, too.
"""

from app.inference.onnx.graph import GRAPH, NAME, OUTPUT, Graph

_HIDING_NAMES = """
    ArgMax ArgMin Cast CastLike Celu Clip Elu Equal Erf Greater GreaterOrEqual HardSigmoid HardSwish Hardmax IsInf IsNaN
    LeakyRelu Less LessOrEqual LogSoftmax Max Min Mish Not PRelu QuantizeLinear Relu Selu Shrink Sigmoid Sign Softmax
    Softplus Softsign Tanh ThresholdedRelu Where
"""
_HIDING = frozenset(_HIDING_NAMES.split())
"""Operators whose output may be finite where their input is not, and always is where it is."""
_KEEPING_NAMES = """
    Abs Add Ceil Concat DepthToSpace Expand Flatten Floor Gather GatherElements GatherND Identity Mul Neg Pad Reshape
    Resize Round Slice SpaceToDepth Split Squeeze Sub Sum Tile Transpose Unsqueeze Upsample
"""
_KEEPING = frozenset(_KEEPING_NAMES.split())
"""Operators whose output is finite where their only variable input is, but for an overflow."""


def hidden_values(graph: Graph) -> dict[str, str]:
    """For each output of integers that may hide a value that is not finite, the name of that value."""
    return {output: value for output in graph.integers if (value := _hidden(graph, output)) is not None}


def with_outputs(model: bytes, names: set[str]) -> bytes:
    """The model with these values among its outputs; ONNX Runtime infers their types."""
    # Protobuf merges two graphs in one file: the outputs of the second are appended to those of the first.
    parts = b"".join(_field(OUTPUT, _field(NAME, name.encode())) for name in sorted(names))
    return model + _field(GRAPH, parts) if parts else model


def _hidden(graph: Graph, output: str) -> str | None:
    """The value before the first operator that hides something from `output`, or None if nothing does.

    The path ends where two variable values meet, and at the operators that compute: convolutions, products of matrices,
    norms.
    """
    producers = {name: node for node in graph.nodes for name in node.outputs}
    value, hidden = output, None
    while node := producers.get(value):
        variable = set(node.inputs) - graph.known
        if len(variable) != 1 or node.operator not in _HIDING | _KEEPING:
            break
        (value,) = variable
        if node.operator in _HIDING and value in producers:  # the inputs of a graph are finite
            hidden = value
    return hidden


def _field(number: int, content: bytes) -> bytes:
    """One field of a protobuf message, of any length."""
    head, length = bytearray([number << 3 | 2]), len(content)
    while length > 127:
        head.append(length & 127 | 128)
        length >>= 7
    return bytes(head) + bytes([length]) + content
