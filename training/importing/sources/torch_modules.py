"""Torch modules as halves: exported to ONNX, and run by torch for comparison."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from training.bundling.conversion import to_model
from training.errors import ImportRefused
from training.importing.onnx_edits.dynamic_batch import free_batch, in_batches
from training.importing.options import Layout
from training.importing.source import Arrays, Half
from training.importing.sources.onnx_files import as_half, normal_form
from training.onnx_graph import all_nodes, is_random

Image = tuple[int, int | None, int | None]

ANY_SIDE = 64
"""Pixels a side of the example that a net of any size is exported with; the width is half as much again."""


def tensors_of(output: Any, name: str = "output") -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of everything that a forward pass gave: tensors, distributions, and collections of them."""
    if isinstance(output, Tensor):
        yield name, output
    elif isinstance(output, Independent):
        yield from tensors_of(output.base_dist)
    elif isinstance(output, Normal):
        yield from (("mean", output.loc), ("std", output.scale))
    elif isinstance(getattr(output, "logvar", None), Tensor):  # a distribution of diffusers
        yield from (("mean", output.mean), ("logvar", output.logvar))
    elif isinstance(output, Mapping):
        for key, part in output.items():
            yield from tensors_of(part, str(key))
    elif isinstance(output, list | tuple):
        for place, part in enumerate(output):
            yield from tensors_of(part, f"{name}_{place}")


class Net(nn.Module):
    """A module's part or method as a net of its own: one tensor in, a tuple of tensors out."""

    def __init__(self, module: nn.Module, path: str) -> None:
        super().__init__()
        self.module, self._path = module, path

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor for _, tensor in tensors_of(self._call(batch)))

    def names(self, batch: Tensor) -> list[str]:
        """What the outputs are called."""
        with torch.no_grad():
            return [name for name, _ in tensors_of(self._call(batch))]

    def _call(self, batch: Tensor) -> Any:
        part: Any = self.module
        for name in self._path.split("."):
            part = getattr(part, name)
        return part(batch)


def runs(net: Callable[[Tensor], Any]) -> Callable[[NDArray[Any]], Arrays]:
    """A net's run on numpy's arrays."""

    def run(batch: NDArray[Any]) -> Arrays:
        with torch.no_grad():
            output = net(torch.from_numpy(np.array(batch)))  # a copy: torch cannot hold what is not writable
            return [tensor.numpy(force=True) for _, tensor in tensors_of(output)]

    return run


def as_net_half(name: str, net: Net, example: Tensor, *, any_size: bool, is_encoder: bool) -> Half:
    """A net as a half; `example` has two rows.

    Raises:
        ImportRefused: it cannot be exported, or not be served.
    """
    free: Any = {0: torch.export.Dim("batch")}
    if any_size:
        free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    try:
        model = to_model(net, example, net.names(example), free)
    except Exception as error:  # the exporter raises whatever it comes upon
        raise ImportRefused(f"{name} cannot be exported to ONNX: {first_line(error)}") from error
    return net_half(model, name, net, is_encoder=is_encoder)


def net_half(model: onnx.ModelProto, name: str, net: Callable[[Tensor], Any], *, is_encoder: bool) -> Half:
    """An exported net, which torch runs; one that draws is run by ONNX Runtime, as torch gives nothing twice.

    Raises:
        ImportRefused: it cannot be served.
    """
    if any(is_random(node) for node in all_nodes(model.graph)):
        return as_half(model, name, is_encoder=is_encoder)
    model = normal_form(model, name)
    return Half(name, model, in_batches(runs(net), free_batch(model)))


def first_line(error: BaseException) -> str:
    """The first line of what an error's deepest cause says."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(frozen=True)
class Examples:
    """Batches of two that nets are exported with."""

    image: Tensor
    layout: Layout
    latent: Tensor


def find_examples(encoder: Net, decoder: Net, image: Image, layout: Layout | None) -> Examples:
    """Inputs that both nets take: an image in this layout, or one that works, and a latent of the encoder's outputs.

    Raises:
        ImportRefused: there are none.
    """
    images, wrong = _images(image, layout), ""
    for kind, batch in images.items():
        try:
            with torch.no_grad():
                outputs = encoder(batch)
        except Exception as error:  # whatever the foreign code raises
            wrong = wrong or first_line(error)
            continue
        return Examples(batch, kind, _latent(decoder, outputs))
    raise ImportRefused(f"the encoder does not take images {list(next(iter(images.values())).shape)}: {wrong}")


def _images(image: Image, layout: Layout | None) -> dict[Layout, Tensor]:
    channels, height, width = image[0], image[1] or ANY_SIDE, image[2] or ANY_SIDE * 3 // 2
    planes = torch.zeros(2, channels, height, width)
    forms: dict[Layout, Tensor] = {
        "nchw": planes,
        "flat": planes.flatten(1),
        "nhw": planes[:, 0],
        "nhwc": planes.movedim(1, -1),
        "flat-nhwc": planes.movedim(1, -1).flatten(1),
    }
    if layout is not None:
        return {layout: forms[layout]}
    found: dict[Layout, Tensor] = {"nchw": forms["nchw"]}
    if channels == 1 and image[1] is not None:
        found["flat"] = forms["flat"]
    return found


def _latent(decoder: Net, outputs: tuple[Tensor, ...]) -> Tensor:
    """The first of the encoder's outputs, or of their halves along the channels, that the decoder takes."""
    candidates = [*outputs, *(output.chunk(2, dim=1)[0] for output in outputs if output.ndim > 1)]
    wrong = ""
    for candidate in candidates:
        try:
            with torch.no_grad():
                decoder(candidate)
        except Exception as error:  # whatever the foreign code raises
            wrong = wrong or first_line(error)
        else:
            return candidate.clone()
    shapes = ", ".join(str(list(output.shape)) for output in outputs)
    raise ImportRefused(f"the decoder takes none of what the encoder gives, {shapes}: {wrong}")
