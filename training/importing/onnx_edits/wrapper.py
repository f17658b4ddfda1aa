"""Wrap foreign graphs with pre- and postprocessing, so that they take and return the tensors of a bundle.

`training.importing.checks.reference` does the same in numpy. Both results are compared before a bundle is written.
"""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, compose, helper

from app.bundle.manifest import Tensor
from training.importing.checks.reference import TINY, bounds
from training.importing.onnx_edits.chain import PREFIX, Chain
from training.importing.onnx_edits.logits import find_logits
from training.importing.options import Answers
from training.importing.source import Shape, SourceGraph
from training.onnx_graph import replace_field

ELEMENT_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
WrappedGraph = tuple[onnx.ModelProto, dict[str, Tensor], dict[str, Tensor]]
"""A model, its inputs, and its outputs."""


def wrap_encoder(encoder: SourceGraph, answers: Answers, latent: Shape) -> WrappedGraph:
    """Make the encoder of a bundle; `latent` is the shape of one latent."""
    before = _to_source_image(Chain("image", "image"), encoder, answers)
    outputs = [PREFIX + name for name in encoder.outputs]
    mean = Chain(outputs[answers.mean], "mean").then("Cast", to=TensorProto.FLOAT)
    heads = [_to_bundle_latent(_split(mean, answers, 0, latent), answers, latent).renamed("mean")]
    if answers.spread is not None:
        spread = Chain(outputs[answers.spread], "log_std").then("Cast", to=TensorProto.FLOAT)
        log_std = _log_std(_split(spread, answers, 1, latent), answers)
        heads.append(_to_bundle_latent(log_std, answers, latent).renamed("log_std"))
    image = Tensor(dtype="uint8", shape=(None, answers.channels, answers.height, answers.width))
    tensor = Tensor(dtype="float32", shape=(None, *latent))
    return _join(encoder, before, heads, {"image": image}, {head.tensor: tensor for head in heads})


def wrap_decoder(decoder: SourceGraph, answers: Answers, latent: Shape) -> WrappedGraph:
    """Make the decoder of a bundle: `image`, and the unrounded `logits` if the foreign graph has them, else `mean`."""
    before = _to_source_latent(Chain("latent", "latent"), decoder, answers, latent)
    logits = find_logits(decoder, answers)
    output = PREFIX + decoder.outputs[answers.image_output]
    mean = _to_unit(_to_planes(Chain(output, "mean").then("Cast", to=TensorProto.FLOAT), answers), answers)
    if logits is None:
        mean.renamed("mean")
    chains = [mean, _to_levels(Chain(mean.tensor, "image")).renamed("image")]
    shape = (None, answers.channels, answers.height, answers.width)
    outputs = {"image": Tensor(dtype="uint8", shape=shape)}
    if logits is not None:
        chains.append(_to_planes(logits, answers).renamed("logits"))
    outputs["mean" if logits is None else "logits"] = Tensor(dtype="float32", shape=shape)
    return _join(decoder, before, chains, {"latent": Tensor(dtype="float32", shape=(None, *latent))}, outputs)


def _to_source_image(chain: Chain, encoder: SourceGraph, answers: Answers) -> Chain:
    """From uint8 `[N, C, H, W]` to the foreign encoder's input."""
    low, high = bounds(answers.range)
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
    if encoder.dtype.kind == "u":
        chain.then("Round")
    return _cast(chain, encoder)


def _to_source_latent(chain: Chain, decoder: SourceGraph, answers: Answers, latent: Shape) -> Chain:
    """From float32 `[N, *latent]` to the foreign decoder's input."""
    extra = len(decoder.input) - 1 - len(latent)
    if extra > 0:
        chain.then("Reshape", _shape(-1, *latent, *[1] * extra))
    elif len(latent) == 3 and answers.layout == "nhwc":
        chain.then("Transpose", perm=[0, 2, 3, 1])
    return _cast(chain, decoder)


def _cast(chain: Chain, graph: SourceGraph) -> Chain:
    """Cast to the element type of a foreign graph's input, and take its name."""
    value = graph.model.graph.input[0]
    return chain.then("Cast", to=value.type.tensor_type.elem_type).renamed(PREFIX + value.name)


def _split(chain: Chain, answers: Answers, part: int, latent: Shape) -> Chain:
    """Mean (part 0) or spread (part 1) of a tensor that holds both; any other tensor is unchanged."""
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


def _to_bundle_latent(chain: Chain, answers: Answers, latent: Shape) -> Chain:
    """Latents in a bundle's layout: a map has its channels first, and a map of 1 x 1 is a vector."""
    if len(latent) == 3:
        return chain.then("Transpose", perm=[0, 3, 1, 2]) if answers.layout == "nhwc" else chain
    return chain.then("Reshape", _shape(-1, *latent))


def _to_planes(chain: Chain, answers: Answers) -> Chain:
    """From the layout of the foreign images to `[N, C, H, W]`."""
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


def _to_unit(chain: Chain, answers: Answers) -> Chain:
    """Values with black at 0 and white at 1."""
    if answers.output == "logits":
        return chain.then("Sigmoid")
    if answers.output == "image":
        low, high = bounds(answers.output_range, reverse=answers.bgr)
        chain.then("Sub", low).then("Div", high - low)
    return chain


def _to_levels(chain: Chain) -> Chain:
    """Gray levels, rounded and clipped before the cast: ONNX does not define casts of values out of range."""
    chain.then("Mul", np.float32(255))
    return chain.then("Round").then("Clip", np.float32(0), np.float32(255)).then("Cast", to=TensorProto.UINT8)


def _shape(*sizes: int | None) -> list[int]:
    return [size or 0 for size in sizes]


def _join(
    source: SourceGraph, before: Chain, after: Sequence[Chain], inputs: dict[str, Tensor], outputs: dict[str, Tensor]
) -> WrappedGraph:
    """Put nodes before and after a foreign graph."""
    model = compose.add_prefix(source.model, PREFIX)
    graph, chains = model.graph, [before, *after]
    replace_field(graph.node, [*before.nodes, *graph.node, *(node for chain in after for node in chain.nodes)])
    graph.initializer.extend(constant for chain in chains for constant in chain.constants)
    replace_field(graph.input, _infos(inputs))
    replace_field(graph.output, _infos(outputs))
    del graph.value_info[:], model.metadata_props[:]
    model.producer_name, model.doc_string, graph.doc_string = "vaeserve", "", ""
    return model, inputs, outputs


def _infos(tensors: dict[str, Tensor]) -> list[onnx.ValueInfoProto]:
    """Descriptions of tensors. A dynamic size is named after its tensor: those of images and latents differ."""
    return [
        helper.make_tensor_value_info(
            name,
            ELEMENT_TYPES[tensor.dtype],
            ["N", *(f"{name}_{axis}" if size is None else size for axis, size in enumerate(tensor.shape[1:]))],
        )
        for name, tensor in tensors.items()
    ]
