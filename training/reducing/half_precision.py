"""ONNX models whose weights are in half precision: in the file alone, or in what is computed, too."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from training.errors import ReductionRefused
from training.reducing.nodes import PRODUCTS, between, read_anywhere, reads

HALF = ".half"
"""What a tensor's name ends with, of its copy in half precision."""
WIDE, EXACT = ".wide", ".exact"
"""Of that copy in float32 again, and of what it is rounded from."""

CARRIES = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Min", "Max", "Clip"),
        *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Erf", "Gelu"),
        *("Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Concat", "Split", "Slice", "Pad"),
        *("DepthToSpace", "SpaceToDepth", "MaxPool", "AveragePool", "GlobalAveragePool", "Resize"),
    }
)
"""Operators that may stand between two products in half precision. What is not among them sums, exponentiates or
normalises, and keeps float32."""


def store_in_half(model: ModelProto, name: str) -> None:
    """Keep matrices and kernels in half precision in the file, for ONNX Runtime to widen when it loads them.

    Raises:
        ReductionRefused: there are none in float32, or one cannot be; `name` is what the model is called.
    """
    kept, casts = [], []
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1:
            stored = _halved(tensor, name)
            casts.append(helper.make_node("Cast", [stored.name], [tensor.name], to=TensorProto.FLOAT))
            kept.append(stored)
        else:
            kept.append(tensor)
    if not casts:
        raise ReductionRefused(f"{name} has no float32 weights that could be reduced")
    _replace(model.graph.initializer, kept)
    _replace(model.graph.node, [*casts, *model.graph.node])


def compute_in_half(model: ModelProto, name: str) -> ModelProto:
    """The model with its products in half precision, and what stands between two of them, if it CARRIES it.

    Before the first and behind the last all is float32, as inputs and outputs are: there pixels are scaled and rounded,
    and what is an exponent or a probability is made.

    Raises:
        ReductionRefused: it has no products in float32, or a weight that half precision does not hold; `name` is what
            the model is called.
    """
    model = onnx.shape_inference.infer_shapes(model)
    floats, weights = _floats(model), {tensor.name: tensor for tensor in model.graph.initializer}
    chosen = _chosen(model, floats)
    if not any(node.op_type in PRODUCTS for index, node in enumerate(model.graph.node) if index in chosen):
        raise ReductionRefused(f"{name} has no products of float32 weights that could be reduced")
    wanted = {out.name for out in model.graph.output}
    wanted |= {read for index, node in enumerate(model.graph.node) if index not in chosen for read in reads(node)}
    nodes: list[NodeProto] = []
    halved: dict[str, TensorProto | None] = {}
    for index, node in enumerate(model.graph.node):
        if index not in chosen:
            nodes.append(node)
            continue
        for place, read in enumerate(node.input):
            if read not in floats or (node.op_type == "Resize" and place):  # whose scales are float32 always
                continue
            if read not in halved:
                halved[read] = _halved(weights[read], name) if read in weights else None
                if read not in weights:
                    nodes.append(helper.make_node("Cast", [read], [read + HALF], to=TensorProto.FLOAT16))
            node.input[place] = read + HALF
        nodes.append(node)
        for place, made in enumerate(node.output):
            if not made:
                continue
            node.output[place], halved[made] = made + HALF, None
            if made in wanted:
                nodes.append(helper.make_node("Cast", [made + HALF], [made], to=TensorProto.FLOAT))
    _replace(model.graph.node, nodes)
    made = [tensor for tensor in halved.values() if tensor is not None]
    read_now = read_anywhere(model)
    _replace(model.graph.initializer, [tensor for tensor in [*weights.values(), *made] if tensor.name in read_now])
    del model.graph.value_info[:]  # their types are no longer so
    return model


def emulate_half(model: ModelProto) -> None:
    """Make of what `compute_in_half` gives the same in float32 operators, whose results are rounded to half precision.

    A CPU has no operators of half precision. ONNX Runtime puts casts around them, but leaves out those between two, so
    that neither rounding nor overflow of what passes there would be seen.
    """
    nodes: list[NodeProto] = []
    widened: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Cast":
            nodes.append(node)
            continue
        for place, read in enumerate(node.input):
            if read.endswith(HALF):
                if read not in widened:
                    nodes.append(helper.make_node("Cast", [read], [read + WIDE], to=TensorProto.FLOAT))
                    widened.add(read)
                node.input[place] = read + WIDE
        nodes.append(node)
        for place, made in enumerate(node.output):
            if made.endswith(HALF):
                node.output[place] = made + EXACT
                nodes.append(helper.make_node("Cast", [made + EXACT], [made], to=TensorProto.FLOAT16))
    _replace(model.graph.node, nodes)


def _floats(model: ModelProto) -> set[str]:
    """Names of the tensors that are known to be float32."""
    graph = model.graph
    typed = [*graph.input, *graph.value_info, *graph.output]
    made = {info.name for info in typed if info.type.tensor_type.elem_type == TensorProto.FLOAT}
    return made | {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}


def _chosen(model: ModelProto, floats: set[str]) -> set[int]:
    """Indices of the nodes that are to compute in half precision."""
    after, before = between(model.graph)
    return {
        index
        for index, node in enumerate(model.graph.node)
        if (node.op_type in PRODUCTS or (node.op_type in CARRIES and index in after and index in before))
        and node.domain in ("", "ai.onnx")
        and {output for output in node.output if output} <= floats
    }


def _halved(tensor: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    largest = np.abs(values).max(initial=0)
    with np.errstate(over="ignore"):
        halved = values.astype(np.float16)
    if not np.isfinite(halved).all():
        raise ReductionRefused(
            f"{name}: `{tensor.name}` has weights up to {largest:g}, and half precision ends at "
            f"{np.finfo(np.float16).max:.0f}"
        )
    return numpy_helper.from_array(halved, tensor.name + HALF)


def _replace(field: Any, values: Sequence[Any]) -> None:
    """Put `values`, which may be its own, in the place of what a repeated field of a model holds."""
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(copies)
