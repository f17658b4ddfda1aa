"""Whether the work of an ONNX graph follows from the shapes of its inputs, or also depends on their values.

Only graphs of the first kind may run on the event loop: what was measured at warm-up holds for every row. A graph that
is not understood counts as one of the second kind.
"""

from collections.abc import Iterator

_PLAIN_NAMES = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization BitShift BitwiseAnd
    BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu Clip Concat Constant Conv ConvInteger ConvTranspose Cos Cosh
    CumSum DepthToSpace DequantizeLinear Det Div DynamicQuantizeLinear Einsum Elu Equal Erf Exp EyeLike Flatten Floor
    Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual
    GridSample GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization IsInf IsNaN LRN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max MaxPool
    Mean MeanVarianceNormalization Min Mish Mod Mul Neg Not Or PRelu Pow QLinearConv QLinearMatMul QuantizeLinear
    Reciprocal Relu Round ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Softmax Softplus
    Softsign SpaceToDepth Sqrt Sub Sum Tan Tanh ThresholdedRelu Transpose Trilu Where Xor
"""
_PLAIN = frozenset(_PLAIN_NAMES.split())
"""Operators that have no sizes among their inputs: shapes and attributes alone decide on their work."""
_SECOND_IS_SIZE = """
    CenterCropPad Expand OneHot ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare Reshape Split Squeeze Tile TopK Unsqueeze Upsample
"""
_SIZES = {
    **dict.fromkeys(_SECOND_IS_SIZE.split(), (1,)),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), (4,)),
    "AffineGrid": (1,),
    "Compress": (0, 1),
    "ConstantOfShape": (0,),
    "NonZero": (0,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
}
"""Operators of which some inputs, by position, are sizes or axes: their values decide on the work."""
_DOMAINS = {"", "ai.onnx"}

# Field numbers of onnx.proto.
_GRAPH, _FUNCTIONS = 7, 25
_NODE, _INITIALIZER, _INPUT = 1, 5, 11
_NODE_INPUT, _NODE_OUTPUT, _OPERATOR, _DOMAIN = 1, 2, 4, 7
_INPUT_NAME, _INITIALIZER_NAME = 1, 8

_Field = tuple[int, memoryview]


def follows_from_shapes(model: bytes) -> bool:
    """Whether the work of a valid ONNX model follows from the shapes of its inputs.

    Sizes may be computed, but only from constants and from the shapes of other values, as exporters do with the batch.
    """
    try:
        fields = list(_fields(memoryview(model)))
        graph = [field for number, part in fields if number == _GRAPH for field in _fields(part)]
    except (ValueError, IndexError):
        return False
    nodes = [list(_fields(part)) for number, part in graph if number == _NODE]
    if not nodes or any(number == _FUNCTIONS for number, _ in fields):
        return False
    inputs = {name for number, part in graph if number == _INPUT for name in _texts(_fields(part), _INPUT_NAME)}
    constants = {
        name for number, part in graph if number == _INITIALIZER for name in _texts(_fields(part), _INITIALIZER_NAME)
    }
    known = constants - inputs | {""}  # values that are constants, or computed from shapes; "" is an omitted input
    return all(_follows(node, known) for node in nodes)


def _follows(node: list[_Field], known: set[str]) -> bool:
    """Whether one node's work follows from shapes; adds its outputs to `known` if their values do, too."""
    operator, domain = (["", *_texts(node, number)][-1] for number in (_OPERATOR, _DOMAIN))
    taken = _texts(node, _NODE_INPUT)
    if operator in ("Shape", "Size") or known.issuperset(taken):
        known.update(_texts(node, _NODE_OUTPUT))
    sizes = [taken[index] for index in _SIZES.get(operator, ()) if index < len(taken)]
    return domain in _DOMAINS and (operator in _PLAIN or operator in _SIZES) and known.issuperset(sizes)


def _texts(fields: "list[_Field] | Iterator[_Field]", number: int) -> list[str]:
    return [bytes(content).decode() for found, content in fields if found == number]


def _fields(message: memoryview) -> Iterator[_Field]:
    """Number and content of each field of a protobuf message; the content of a number is empty.

    Raises:
        ValueError, IndexError: it is no such message.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        start, kind = at, key & 7
        if kind == 0:
            _, at = _varint(message, at)
            start = at
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
