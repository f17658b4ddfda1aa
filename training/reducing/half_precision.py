"""ONNX models with weights in half precision: in the file alone, or in the computation as well."""

from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from training.errors import ReductionRefused
from training.onnx_graph import PRODUCTS, beside_products, inputs_of, remove_unused_weights, replace_field

HALF = ".half"
"""Suffix of the float16 copy of a tensor."""
WIDENED, UNROUNDED = ".wide", ".exact"
"""Suffixes of that copy cast to float32, and of the float32 result that it is rounded from."""

SAFE_OPERATORS = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Min", "Max", "Clip"),
        *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Erf", "Gelu"),
        *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Concat", "Split", "Slice", "Pad"),
        *("DepthToSpace", "SpaceToDepth", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize"),
    }
)
"""Operators that compute in half precision between two products. Others, which sum, exponentiate or normalize, stay in
float32."""


def store_in_half(model: ModelProto, name: str) -> None:
    """Store matrices and kernels as float16 in the file. ONNX Runtime widens them when it loads the model.

    Raises:
        ReductionRefused: none are float32, or a weight exceeds float16; `name` is the model's name in messages.
    """
    weights, casts = [], []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            half = _to_half(tensor, name)
            casts.append(helper.make_node("Cast", [half.name], [tensor.name], to=TensorProto.FLOAT))
            weights.append(half)
        else:
            weights.append(tensor)
    if not casts:
        raise ReductionRefused(f"{name} has no float32 weights that could be reduced")
    replace_field(model.graph.initializer, weights)
    replace_field(model.graph.node, [*casts, *model.graph.node])


def compute_in_half(model: ModelProto, name: str) -> ModelProto:
    """Convert the matrix products to float16, and the SAFE_OPERATORS between two of them.

    Operators before the first product and after the last stay float32, like inputs and outputs: they scale and round
    pixels, and compute exponents and probabilities.

    Raises:
        ReductionRefused: it has no products in float32, or a weight exceeds float16; `name` is the model's name in
            messages.
    """
    model = onnx.shape_inference.infer_shapes(model)
    floats, weights = _float_tensors(model), {tensor.name: tensor for tensor in model.graph.initializer}
    chosen = _choose_nodes(model, floats)
    if not any(model.graph.node[index].op_type in PRODUCTS for index in chosen):
        raise ReductionRefused(f"{name} has no products of float32 weights that could be reduced")
    float_readers = (inputs_of(node) for index, node in enumerate(model.graph.node) if index not in chosen)
    read_as_float = {output.name for output in model.graph.output}.union(*float_readers)
    nodes: list[NodeProto] = []
    halved: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if index in chosen:
            casts, back = _convert_node(node, floats, halved, set(weights), read_as_float)
            nodes += [*casts, node, *back]
        else:
            nodes.append(node)
    model.graph.initializer.extend(_to_half(tensor, name) for tensor in weights.values() if tensor.name in halved)
    replace_field(model.graph.node, nodes)
    remove_unused_weights(model.graph)
    del model.graph.value_info[:]  # their types have changed
    return model


def _convert_node(
    node: NodeProto, floats: set[str], halved: set[str], weights: set[str], read_as_float: set[str]
) -> tuple[list[NodeProto], list[NodeProto]]:
    """Make a node read and write the float16 copies of its tensors, and return the casts before and after it.

    `halved` holds the names of the tensors that have such a copy; new ones are added.
    """
    before, after = [], []
    for place, tensor in enumerate(node.input):
        if tensor not in floats or (node.op_type == "Resize" and place):  # the scales of Resize must be float32
            continue
        if tensor not in halved and tensor not in weights:
            before.append(helper.make_node("Cast", [tensor], [tensor + HALF], to=TensorProto.FLOAT16))
        halved.add(tensor)
        node.input[place] = tensor + HALF
    for place, tensor in enumerate(node.output):
        if tensor:
            node.output[place] = tensor + HALF
            halved.add(tensor)
            if tensor in read_as_float:
                after.append(helper.make_node("Cast", [tensor + HALF], [tensor], to=TensorProto.FLOAT))
    return before, after


def emulate_half(model: ModelProto) -> ModelProto:
    """A copy in which the operators that `compute_in_half` made compute in float32 and round their results to float16.

    A CPU has no float16 operators. ONNX Runtime puts casts around each, but removes the casts between two operators:
    rounding and overflow between them would go unnoticed.
    """
    model = ModelProto.FromString(model.SerializeToString())
    nodes: list[NodeProto] = []
    widened: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Cast":
            nodes.append(node)
            continue
        for place, tensor in enumerate(node.input):
            if tensor.endswith(HALF):
                if tensor not in widened:
                    nodes.append(helper.make_node("Cast", [tensor], [tensor + WIDENED], to=TensorProto.FLOAT))
                    widened.add(tensor)
                node.input[place] = tensor + WIDENED
        nodes.append(node)
        for place, tensor in enumerate(node.output):
            if tensor.endswith(HALF):
                node.output[place] = tensor + UNROUNDED
                nodes.append(helper.make_node("Cast", [tensor + UNROUNDED], [tensor], to=TensorProto.FLOAT16))
    replace_field(model.graph.node, nodes)
    return model


def _float_tensors(model: ModelProto) -> set[str]:
    graph = model.graph
    typed = [*graph.input, *graph.value_info, *graph.output]
    names = {value.name for value in typed if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return names | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


def _choose_nodes(model: ModelProto, floats: set[str]) -> set[int]:
    downstream, upstream = beside_products(model.graph)
    return {
        index
        for index, node in enumerate(model.graph.node)
        if (node.op_type in PRODUCTS or (node.op_type in SAFE_OPERATORS and index in downstream & upstream))
        and node.domain in ("", "ai.onnx")
        and {output for output in node.output if output} <= floats
    }


def _to_half(tensor: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        half: Any = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise ReductionRefused(
            f"{name}: `{tensor.name}` has weights up to {np.abs(values).max():g}, and half precision ends at "
            f"{np.finfo(np.float16).max:.0f}"
        )
    return numpy_helper.from_array(half, tensor.name + HALF)
