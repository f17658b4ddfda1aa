"""A torch model's own forward pass, to be compared with its decoder run on its encoder's output.

Normal draws are replaced by their means, so that a forward pass that draws z = mean + std * eps decodes the mean.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.utils._python_dispatch import TorchDispatchMode

from training.errors import ImportRefused
from training.importing.source import Arrays, Forward, RunGraph
from training.importing.sources.torch_modules import first_line, flatten_output

aten: Any = torch.ops.aten
CALLS: tuple[Callable[[nn.Module, Tensor], Any], ...] = (
    lambda model, images: model(images),
    lambda model, images: model({"data": images}),  # pythae
)
"""Ways to call a forward pass; the first that works is taken. First without gradients, which take much memory; some
forward passes differentiate."""
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
            shapes = [part.shape for part in (mean, std) if isinstance(part, Tensor)]
            shape = torch.broadcast_shapes(*shapes) if shapes else args[2]  # type: ignore[no-untyped-call]
            return torch.zeros(shape, **{k: v for k, v in given.items() if k != "std"}) + mean
        return func(*args, **(kwargs or {}))


def find_forward(model: nn.Module, example: Tensor) -> Forward | None:
    """The forward pass of a model in evaluation mode, without noise; None if it has none.

    `example` is a batch of images.
    """
    reason, images = "", example.numpy(force=True)
    for has_gradients, call in product((False, True), CALLS):
        run = partial(_run, partial(call, model), has_gradients)
        try:
            first, second = (run(images) for _ in range(2))
        except NotImplementedError:
            return None
        except Exception as error:  # foreign code raises any kind
            reason = reason or f"it fails: {first_line(error)}"
            continue
        if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True)):
            return Forward(None, "it draws random numbers that are not normal", find_family(model))
        return Forward(partial(_run_or_refuse, run), "", find_family(model))
    return Forward(None, reason, find_family(model))


def _run(call: Callable[[Tensor], Any], has_gradients: bool, images: NDArray[Any]) -> Arrays:
    with torch.set_grad_enabled(has_gradients), _without_validation(), WithoutNoise():  # type: ignore[no-untyped-call]
        output = call(torch.from_numpy(np.array(images)))
        return [tensor.numpy(force=True) for _, tensor in flatten_output(output)]


def _run_or_refuse(run: RunGraph, images: NDArray[Any]) -> Arrays:
    try:
        return run(images)
    except Exception as error:  # foreign code raises any kind
        raise ImportRefused(f"it fails: {first_line(error)}") from error


@contextmanager
def _without_validation() -> Iterator[None]:
    """Inside, torch's distributions take any value: some forward passes return the likelihood of gray pixels."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def find_family(model: nn.Module) -> str | None:
    """The kind of model that a bundle cannot represent, by the names of a model's parts; None if no name shows one."""
    names = [type(model).__name__, *(name for name, _ in model.named_parameters())]
    names += [type(module).__name__ for module in model.modules()]
    return next((family for family, pattern in FAMILIES.items() if any(map(pattern.search, names))), None)


def find_prior(model: nn.Module) -> str | None:
    """Name of a parameter of a learned prior; None if there is none."""
    trained = (name for name, parameter in model.named_parameters() if parameter.requires_grad)
    return next((name for name in trained if PRIORS.search(name)), None)
