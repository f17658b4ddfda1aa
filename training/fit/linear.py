"""Linear layers on a CPU through oneDNN, as torch computes convolutions there anyway.

MKL, which torch asks for matrix products, uses half the width of AMD's vector units from Zen 5 on: there, the linear
layers of the shipped MLP take two thirds of the time this way. On older ones the products take as long either way, and
what is around them takes longer. The products are float32 as before, but rounded otherwise.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ZEN_5 = 26
"""AMD's number of that family of processors."""


def onednn_wins(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether oneDNN is faster than MKL on this processor; no, where the system does not tell which it is."""
    try:
        family = re.search(r"^vendor_id\s*: AuthenticAMD\ncpu family\s*: (\d+)$", cpuinfo.read_text(), re.MULTILINE)
    except OSError:
        family = None
    return family is not None and int(family[1]) >= ZEN_5


def use_onednn(net: nn.Module) -> bool:
    """Let the linear layers of `net`, float32 on a CPU, compute through oneDNN; whether this build of torch has it.

    The weights and their names stay.
    """
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not built or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    for layer in net.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = OneDnnLinear
    return True


class OneDnnLinear(nn.Linear):
    """A linear layer of rows `[N, in_features]`."""

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = _Product.apply(x, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return output


class _Product(torch.autograd.Function):
    """x W^T + b of `[N, i]`, `[o, i]` and `[o]`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_x = _product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        return of_x, _product(gradient.t(), x.t()), gradient.sum(dim=0)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
