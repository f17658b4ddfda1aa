"""A torch model's own forward pass, to be compared with its decoder run on its encoder's output.

Normal draws are replaced by their means, so that a forward pass that draws z = mean + std * eps decodes the mean.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from training.importing.source import Forward
from training.importing.sources.torch_modules import first_line, flatten_output

aten: Any = torch.ops.aten
CALLS: tuple[Callable[[nn.Module, Tensor], Any], ...] = (
    lambda model, images: model(images),
    lambda model, images: model({"data": images}),  # pythae
)
"""Ways to call a forward pass; the first that works is taken."""
FAMILIES = {
    "a vector-quantized model": re.compile(r"quanti[sz]|codebook|(^|[^a-z])vq", re.IGNORECASE),
    "a model with a flow posterior": re.compile(r"flow|(?<![a-z])(iaf|maf|made|realnvp|glow)(?![a-z])", re.IGNORECASE),
    "a hierarchical model": re.compile(r"hierarch|ladder|nvae|hvae|top_?down|bottom_?up", re.IGNORECASE),
    "a conditional model": re.compile(r"(?<![a-z])cond(?!uct)|conditional|cvae|class_?emb|label_?emb", re.IGNORECASE),
}
"""Kinds of models that a bundle cannot represent, and names of their parts."""
PRIORS = re.compile(r"prior|pseudo_?inputs?|vamp", re.IGNORECASE)
"""Names of the parameters of a learned prior."""


class WithoutNoise(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, each draw from a normal distribution gives its mean."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        packet, given = func.overloadpacket, {k: v for k, v in (kwargs or {}).items() if k != "generator"}
        if packet is aten.randn_like:
            return torch.zeros_like(args[0], **given)
        if packet is aten.randn:
            return torch.zeros(args[0], **given)
        if packet is aten.normal_:
            return args[0].fill_(args[1] if len(args) > 1 else given.get("mean", 0.0))
        if packet is aten.normal:
            mean, std = args[0], args[1] if len(args) > 1 else given.get("std", 1.0)
            shape = next((part.shape for part in (mean, std) if isinstance(part, Tensor)), args[2:3] and args[2])
            return torch.zeros(shape, **{k: v for k, v in given.items() if k != "std"}) + mean
        return func(*args, **(kwargs or {}))


def find_forward(model: nn.Module, example: Tensor) -> Forward | None:
    """The forward pass of a model in evaluation mode, without noise; None if it has none.

    `example` is a batch of images.
    """
    reason = ""
    for call in CALLS:
        try:
            first, second = (_run(model, call, example) for _ in range(2))
        except NotImplementedError:
            return None
        except Exception as error:  # foreign code raises any kind
            reason = reason or f"it fails: {first_line(error)}"
            continue
        if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
            return Forward(None, "it draws random numbers that are not normal", find_family(model))

        def run(batch: NDArray[Any], call: Any = call) -> list[NDArray[Any]]:
            return [tensor.numpy(force=True) for tensor in _run(model, call, torch.from_numpy(np.array(batch)))]

        return Forward(run, "", find_family(model))
    return Forward(None, reason, find_family(model))


def _run(model: nn.Module, call: Callable[[nn.Module, Tensor], Any], images: Tensor) -> list[Tensor]:
    with torch.enable_grad(), WithoutNoise():  # type: ignore[no-untyped-call]  # some forward passes differentiate  # type: ignore[no-untyped-call]
        return [tensor.detach() for _, tensor in flatten_output(call(model, images.clone()))]


def find_family(model: nn.Module) -> str | None:
    """The kind of model that a bundle cannot represent, by the names of a model's parts; None if no name shows one."""
    names = [type(model).__name__, *(name for name, _ in model.named_parameters())]
    names += [type(module).__name__ for module in model.modules()]
    return next((family for family, pattern in FAMILIES.items() if any(map(pattern.search, names))), None)


def find_prior(model: nn.Module) -> str | None:
    """Name of a parameter of a learned prior; None if there is none."""
    trained = (name for name, parameter in model.named_parameters() if parameter.requires_grad)
    return next((name for name in trained if PRIORS.search(name)), None)
