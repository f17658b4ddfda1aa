"""Whether the work of an ONNX graph follows from the shapes of its inputs, or also depends on their values.

Only graphs of the first kind may run on the event loop: what was measured at warm-up holds for every row. A graph that
is not understood counts as one of the second kind.
"""

from app.inference.onnx.graph import Graph, Node

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


def follows_from_shapes(graph: Graph) -> bool:
    """Whether the work of a valid ONNX graph follows from the shapes of its inputs.

    Sizes may be computed, but only from constants and from the shapes of other values, as exporters do with the batch.
    """
    return bool(graph.nodes) and not graph.has_functions and all(_follows(node, graph.known) for node in graph.nodes)


def _follows(node: Node, known: set[str]) -> bool:
    sizes = [node.inputs[index] for index in _SIZES.get(node.operator, ()) if index < len(node.inputs)]
    return (node.operator in _PLAIN or node.operator in _SIZES) and known.issuperset(sizes)
