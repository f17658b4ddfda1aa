"""The graph edits that make a bundle's graphs of foreign ones: uint8 in and out, `mean`, `log_std`, `latent`, `image`.

The twin in numpy, that the result is compared with, is `training.importing.checks.reference`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from app.bundle.manifest import Tensor
from training.importing.checks.reference import TINY
from training.importing.onnx_edits.decoder_outputs import PASSING, ending
from training.importing.options import Answers
from training.importing.source import Half

PREFIX = "source."
"""Of every name that was in the foreign graph."""

Shape = tuple[int | None, ...]
KINDS = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}


class Chain:
    """Nodes that follow each other, from one tensor on; every name they make begins with `name`."""

    def __init__(self, tensor: str, name: str) -> None:
        self.tensor, self._name = tensor, name
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def then(self, operator: str, *constants: object, **attributes: Any) -> "Chain":
        """A node that takes the tensor, and constants beside it; its output is the tensor from now on."""
        output = f"{self._name}.{len(self.nodes)}"
        names = [f"{output}.{index}" for index in range(len(constants))]
        for name, constant in zip(names, constants, strict=True):
            self.constants.append(numpy_helper.from_array(np.asarray(constant), name))
        self.nodes.append(helper.make_node(operator, [self.tensor, *names], [output], **attributes))
        self.tensor = output
        return self

    def called(self, name: str) -> "Chain":
        """The tensor under a name of its own."""
        self.nodes.append(helper.make_node("Identity", [self.tensor], [name]))
        self.tensor = name
        return self


def wrap_encoder(
    half: Half, answers: Answers, latent: Shape
) -> tuple[onnx.ModelProto, dict[str, Tensor], dict[str, Tensor]]:
    """The encoder of a bundle, its inputs and its outputs; `latent` is the shape of one."""
    before = _to_source(Chain("image", "image"), half, answers)
    outputs = [PREFIX + name for name in half.outputs]
    mean = Chain(outputs[answers.mean], "mean").then("Cast", to=TensorProto.FLOAT)
    heads = [_arranged(_part(mean, answers, 0, latent), answers, latent).called("mean")]
    if answers.spread is not None:
        spread = Chain(outputs[answers.spread], "log_std").then("Cast", to=TensorProto.FLOAT)
        log_std = _log_std(_part(spread, answers, 1, latent), answers)
        heads.append(_arranged(log_std, answers, latent).called("log_std"))
    image = Tensor(dtype="uint8", shape=(None, answers.channels, answers.height, answers.width))
    tensor = Tensor(dtype="float32", shape=(None, *latent))
    return _joined(half, before, heads, {"image": image}, {head.tensor: tensor for head in heads})


def wrap_decoder(
    half: Half, answers: Answers, latent: Shape, logits: str | None
) -> tuple[onnx.ModelProto, dict[str, Tensor], dict[str, Tensor]]:
    """The decoder of a bundle, its inputs and its outputs; `logits` names the foreign tensor that has them."""
    before = _to_latent(Chain("latent", "latent"), half, answers, latent)
    output = PREFIX + half.outputs[answers.picture]
    values = _to_planes(Chain(output, "image").then("Cast", to=TensorProto.FLOAT), answers)
    chains = [_levels(values, answers).called("image")]
    shape = (None, answers.channels, answers.height, answers.width)
    outputs = {"image": Tensor(dtype="uint8", shape=shape)}
    if logits is not None:
        found = _in_layout(Chain(PREFIX + logits, "logits").then("Cast", to=TensorProto.FLOAT), answers)
        chains.append(_to_planes(found, answers).called("logits"))
        outputs["logits"] = Tensor(dtype="float32", shape=shape)
    return _joined(half, before, chains, {"latent": Tensor(dtype="float32", shape=(None, *latent))}, outputs)


def find_logits(half: Half, answers: Answers) -> str | None:
    """The tensor of the decoder that has the logits: its output, or what its last sigmoid takes; None if none has."""
    if answers.output == "logits":
        return half.outputs[answers.picture]
    # Where sizes are fixed, a shape that was lost on the way can be had again; an order cannot.
    passing = PASSING if answers.height is not None else ("Identity", "Cast")
    node = ending(half, answers.picture, passing) if answers.output == "probabilities" else None
    return node.input[0] if node is not None and node.op_type == "Sigmoid" else None


def _to_source(chain: Chain, half: Half, answers: Answers) -> Chain:
    """From uint8 `[N, C, H, W]` to what the foreign encoder takes."""
    low, high = np.float32(answers.range.low), np.float32(answers.range.high)
    chain.then("Cast", to=TensorProto.FLOAT)
    if answers.bgr:
        chain.then("Gather", np.array([2, 1, 0]), axis=1)
    chain.then("Mul", (high - low) / np.float32(255)).then("Add", low)
    if answers.layout in ("nhwc", "flat-nhwc"):
        chain.then("Transpose", perm=[0, 2, 3, 1])
    if answers.layout.startswith("flat"):
        chain.then("Flatten", axis=1)
    if answers.layout == "nhw":
        chain.then("Reshape", _shape(-1, answers.height, answers.width))
    if half.dtype.kind == "u":
        chain.then("Round")
    return _cast(chain, half)


def _to_latent(chain: Chain, half: Half, answers: Answers, latent: Shape) -> Chain:
    """From float32 `[N, *latent]` to what the foreign decoder takes."""
    extra = len(half.input) - 1 - len(latent)
    if extra > 0:
        chain.then("Reshape", _shape(-1, *latent, *[1] * extra))
    elif len(latent) == 3 and answers.layout == "nhwc":
        chain.then("Transpose", perm=[0, 2, 3, 1])
    return _cast(chain, half)


def _cast(chain: Chain, half: Half) -> Chain:
    """To the element type of a half's input, under its name."""
    kind = half.model.graph.input[0]
    return chain.then("Cast", to=kind.type.tensor_type.elem_type).called(PREFIX + kind.name)


def _part(chain: Chain, answers: Answers, part: int, latent: Shape) -> Chain:
    """One half of a tensor of moments, along its channels; the tensor itself where it is no such."""
    if not answers.is_split:
        return chain
    channels = latent[0] or 0
    axis = 3 if answers.layout == "nhwc" and len(latent) == 3 else 1
    return chain.then("Slice", *([value] for value in (part * channels, (part + 1) * channels, axis)))


def _log_std(chain: Chain, answers: Answers) -> Chain:
    if answers.clip is not None:
        chain.then("Clip", *(np.float32(bound) for bound in answers.clip))
    if answers.posterior in ("variance", "std"):
        chain.then("Clip", np.float32(TINY)).then("Log")
    if answers.posterior in ("variance", "log-variance"):
        chain.then("Mul", np.float32(0.5))
    return chain


def _arranged(chain: Chain, answers: Answers, latent: Shape) -> Chain:
    """As a bundle has latents: maps channels first, a map of one cell as a vector."""
    if len(latent) == 3:
        return chain.then("Transpose", perm=[0, 3, 1, 2]) if answers.layout == "nhwc" else chain
    return chain.then("Reshape", _shape(-1, *latent))


def _to_planes(chain: Chain, answers: Answers) -> Chain:
    """From what the decoder gives to `[N, C, H, W]`."""
    size = answers.height, answers.width
    if answers.layout == "flat":
        chain.then("Reshape", _shape(-1, answers.channels, *size))
    if answers.layout == "flat-nhwc":
        chain.then("Reshape", _shape(-1, *size, answers.channels))
    if answers.layout == "nhw":
        chain.then("Reshape", _shape(-1, 1, *size))
    if answers.layout in ("nhwc", "flat-nhwc"):
        chain.then("Transpose", perm=[0, 3, 1, 2])
    return chain.then("Gather", np.array([2, 1, 0]), axis=1) if answers.bgr else chain


def _in_layout(chain: Chain, answers: Answers) -> Chain:
    """Give a tensor the shape that the decoder's output has, if that is a fixed one."""
    size = answers.height, answers.width
    if None in size:
        return chain
    wanted = {"nchw": (answers.channels, *size), "nhwc": (*size, answers.channels)}.get(answers.layout)
    return chain if wanted is None else chain.then("Reshape", _shape(-1, *wanted))


def _levels(chain: Chain, answers: Answers) -> Chain:
    """Grey levels, rounded and clipped before the cast: out of range, ONNX leaves it undefined."""
    low, high = np.float32(answers.output_range.low), np.float32(answers.output_range.high)
    if answers.output == "logits":
        chain.then("Sigmoid")
    if answers.output == "image":
        chain.then("Sub", low).then("Mul", np.float32(255) / (high - low))
    else:
        chain.then("Mul", np.float32(255))
    return chain.then("Round").then("Clip", np.float32(0), np.float32(255)).then("Cast", to=TensorProto.UINT8)


def _shape(*sizes: int | None) -> list[int]:
    return [size or 0 for size in sizes]


def _joined(
    half: Half, before: Chain, after: Sequence[Chain], inputs: dict[str, Tensor], outputs: dict[str, Tensor]
) -> tuple[onnx.ModelProto, dict[str, Tensor], dict[str, Tensor]]:
    """The foreign graph with nodes before and after it."""
    model = compose.add_prefix(half.model, PREFIX)
    graph, chains = model.graph, [before, *after]
    nodes = [*before.nodes, *graph.node, *(node for chain in after for node in chain.nodes)]
    inner = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    for part in (graph.node, graph.input, graph.output, graph.value_info, model.metadata_props):
        del part[:]
    graph.node.extend(inner)
    graph.initializer.extend(constant for chain in chains for constant in chain.constants)
    graph.input.extend(_infos(inputs))
    graph.output.extend(_infos(outputs))
    model.producer_name, model.doc_string, graph.doc_string = "vaeserve", "", ""
    return model, inputs, outputs


def _infos(tensors: dict[str, Tensor]) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info(name, KINDS[tensor.dtype], ["N", *_symbols(name, tensor.shape[1:])])
        for name, tensor in tensors.items()
    ]


def _symbols(tensor: str, shape: Shape) -> list[int | str]:
    """Variable sizes by a name of the tensor's own: an image's and a map's differ."""
    return [size if size is not None else f"{tensor}_{place}" for place, size in enumerate(shape)]
