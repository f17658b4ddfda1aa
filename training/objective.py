"""Loss terms as pure functions, in nats an image. The loss is `negative_elbo`; the ELBO itself is higher-is-better."""

import torch
from torch import Tensor
from torch.nn import functional


def draw(mean: Tensor, log_std: Tensor) -> Tensor:
    """Reparameterised draw z = mean + exp(log_std) * eps, eps ~ N(0, I); `[N, latent]` (Kingma & Welling 2013)."""
    return mean + log_std.exp() * torch.randn_like(mean)


def kl_divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, exp(log_std)^2) || N(0, I)) `[N]`, summed over latent dimensions; never negative.

    0.5 * sum(mean^2 + exp(2 log_std) - 2 log_std - 1): Kingma & Welling 2013, appendix B, with the sign put right.
    expm1 keeps it from falling below zero by rounding.
    """
    return 0.5 * (mean.square() + (2 * log_std).expm1() - 2 * log_std).sum(dim=1)


def cross_entropy(logits: Tensor, pixels: Tensor) -> Tensor:
    """Cross entropy `[N]` of pixels `[N, C, H, W]` in [0, 1] under logits, summed over pixels.

    On binary pixels this is -log p(x|z) of a factorised Bernoulli; on grey values it is no likelihood.
    """
    return functional.binary_cross_entropy_with_logits(logits, pixels, reduction="none").flatten(1).sum(dim=1)


def binarize(pixels: Tensor) -> Tensor:
    """Binary pixels drawn with the grey values in [0, 1] as probabilities (dynamic binarization)."""
    return torch.bernoulli(pixels)
