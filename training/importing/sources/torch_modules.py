"""Torch modules as encoder and decoder: exported to ONNX, and run by torch for the comparison."""

from collections.abc import Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from training.bundling.conversion import to_model
from training.errors import ImportRefused
from training.importing.onnx_edits.dynamic_batch import make_batch_dynamic, run_in_portions
from training.importing.options import ImageShape, Layout
from training.importing.source import RunGraph, SourceGraph
from training.importing.sources.onnx_files import normalize, to_source_graph
from training.onnx_graph import is_random

ANY_SIZE_SIDE = 64
"""Height in pixels of the example that a module of any size is exported with. Its width is 1.5 times the height."""


def flatten_output(output: Any, name: str = "output") -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of a forward pass's output: tensors, distributions, and collections of them."""
    if isinstance(output, Tensor):
        yield name, output
    elif isinstance(output, Independent):
        yield from flatten_output(output.base_dist)
    elif isinstance(output, Normal):
        yield from (("mean", output.loc), ("std", output.scale))
    elif isinstance(getattr(output, "logvar", None), Tensor):  # a distribution of diffusers
        yield from (("mean", output.mean), ("logvar", output.logvar))
    elif isinstance(output, Mapping):
        for key, part in output.items():
            yield from flatten_output(part, str(key))
    elif isinstance(output, list | tuple):
        for index, part in enumerate(output):
            yield from flatten_output(part, f"{name}_{index}")


class Submodule(nn.Module):
    """A submodule or method of a module, as a module from one tensor to a tuple of tensors."""

    def __init__(self, module: nn.Module, path: str) -> None:
        super().__init__()
        self.module, self.path = module, path

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor for _, tensor in flatten_output(self._call(batch)))

    def output_names(self, batch: Tensor) -> list[str]:
        """Names of the outputs for a batch."""
        with torch.no_grad():
            return [name for name, _ in flatten_output(self._call(batch))]

    def _call(self, batch: Tensor) -> Any:
        return attrgetter(self.path)(self.module)(batch)


def _run_with_numpy(module: Callable[[Tensor], Any]) -> RunGraph:
    def run(batch: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.no_grad():
            output = module(torch.from_numpy(np.array(batch)))  # a copy: torch warns of read-only arrays
            return [tensor.numpy(force=True) for _, tensor in flatten_output(output)]

    return run


def export_submodule(
    name: str, submodule: Submodule, example: Tensor, *, any_size: bool, is_encoder: bool
) -> SourceGraph:
    """Export a submodule. `example` has two rows.

    Raises:
        ImportRefused: it cannot be exported, or cannot be served.
    """
    dynamic: Any = {0: torch.export.Dim("batch")}
    if any_size:
        dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    try:
        model = to_model(submodule, example, submodule.output_names(example), dynamic)
    except Exception as error:  # the exporter raises many kinds
        raise ImportRefused(f"{name} cannot be exported to ONNX: {first_line(error)}") from error
    return graph_of(model, name, submodule, is_encoder=is_encoder)


def graph_of(model: onnx.ModelProto, name: str, module: Callable[[Tensor], Any], *, is_encoder: bool) -> SourceGraph:
    """An exported module, run by torch. If it draws random numbers, ONNX Runtime runs its graph without the draw.

    Raises:
        BundleError: ONNX Runtime cannot load the graph.
        ImportRefused: it cannot be served.
    """
    if any(map(is_random, model.graph.node)):
        return to_source_graph(model, name, is_encoder=is_encoder)
    model = normalize(model, name)
    return SourceGraph(name, model, run_in_portions(_run_with_numpy(module), make_batch_dynamic(model)))


def first_line(error: BaseException) -> str:
    """First line of the message of an error's deepest cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def find_examples(
    encoder: Callable[[Tensor], Any], decoder: Callable[[Tensor], Any], image: ImageShape, layout: Layout | None
) -> tuple[Layout, Tensor, Tensor]:
    """Find two images that the encoder takes, in `layout` or else in a usual one, and two latents for the decoder.

    Raises:
        ImportRefused: there is none.
    """
    images, reason = _example_images(image, layout), ""
    for tried, batch in images.items():
        try:
            with torch.no_grad():
                outputs = [tensor for _, tensor in flatten_output(encoder(batch))]
        except Exception as error:  # foreign code raises any kind
            reason = reason or first_line(error)
            continue
        return tried, batch, _example_latent(decoder, outputs)
    raise ImportRefused(f"the encoder does not take images {list(next(iter(images.values())).shape)}: {reason}")


def _example_images(image: ImageShape, layout: Layout | None) -> dict[Layout, Tensor]:
    """Black images by layout: in `layout`, or if it is None, in the layouts to try."""
    channels, height, width = image[0], image[1] or ANY_SIZE_SIDE, image[2] or ANY_SIZE_SIDE * 3 // 2
    planes = torch.zeros(2, channels, height, width)
    images: dict[Layout, Tensor] = {
        "nchw": planes,
        "flat": planes.flatten(1),
        "nhw": planes[:, 0],
        "nhwc": planes.movedim(1, -1),
        "flat-nhwc": planes.movedim(1, -1).flatten(1),
    }
    if layout is not None:
        return {layout: images[layout]}
    tried: tuple[Layout, ...] = ("nchw", "flat") if channels == 1 and image[1] is not None else ("nchw",)
    return {name: images[name] for name in tried}


def _example_latent(decoder: Callable[[Tensor], Any], outputs: list[Tensor]) -> Tensor:
    """The first of the encoder's outputs, or of their first halves along the channels, that the decoder takes."""
    candidates = [*outputs, *(output.chunk(2, dim=1)[0] for output in outputs if output.ndim > 1)]
    reason = ""
    for candidate in candidates:
        try:
            with torch.no_grad():
                decoder(candidate)
        except Exception as error:  # foreign code raises any kind
            reason = reason or first_line(error)
        else:
            return candidate.clone()
    shapes = ", ".join(str(list(output.shape)) for output in outputs)
    is_hierarchical = len({output.shape[2:] for output in outputs if output.ndim == 4}) > 1
    kind = "; a bundle cannot represent a hierarchical model, which has latents of several sizes" * is_hierarchical
    raise ImportRefused(f"the decoder takes none of the encoder's outputs, {shapes}: {reason}{kind}")
