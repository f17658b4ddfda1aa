"""Loss terms as pure functions, in nats. The loss is `negative_elbo`; the ELBO itself is higher-is-better."""

import math

import torch
from torch import Tensor


def kl_divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, exp(log_std)^2) || N(0, I)) of each latent dimension, `[N, d]`; never negative.

    0.5 * (mean^2 + exp(2 log_std) - 2 log_std - 1): Kingma & Welling 2013, appendix B, which solves for its negative.
    expm1 keeps it from falling below zero by rounding.
    """
    return 0.5 * (mean.square() + (2 * log_std).expm1() - 2 * log_std)


def free_bits(kl: Tensor, nats: float) -> Tensor:
    """KL `[]` of a batch's `[N, d]`, in which no dimension's mean counts for less than `nats`.

    A dimension below has no gradient, so that it is not switched off early (Kingma et al. 2016, equation 15).
    """
    return kl.mean(dim=0).clamp(min=nats).sum()


def log_normal(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(z; mean, exp(log_std)^2) summed over the last axis."""
    return -(0.5 * ((z - mean) / log_std.exp()).square() + log_std + 0.5 * math.log(2 * math.pi)).sum(dim=-1)


def importance_weights(log_p_x: Tensor, z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log p(x|z) p(z) / q(z|x) `[k, N]` of draws z `[k, N, d]`; log_p_x is `[k, N]`."""
    zero = torch.zeros_like(mean)
    return log_p_x + log_normal(z, zero, zero) - log_normal(z, mean, log_std)


def iwae(log_weights: Tensor) -> Tensor:
    """The IWAE-k bound on log p(x) `[N]`, log 1/k sum_i w_i (Burda, Grosse & Salakhutdinov 2015, equation 8)."""
    return log_weights.logsumexp(dim=0) - math.log(len(log_weights))


def dreg_loss(log_weights: Tensor, z: Tensor) -> Tensor:
    """A loss `[N]` whose gradient is that of the negative IWAE-k bound, doubly reparameterised; its value is not.

    `log_weights` `[k, N]` must come from q(z|x) with its parameters detached, so that the encoder is reached through
    `z` `[k, N, d]` alone. The decoder's gradient is weighted with the normalised weights w, the encoder's with w^2
    (Tucker, Lawson, Gu & Maddison 2018, equations 5 and 7).
    """
    weights = log_weights.detach().softmax(dim=0)
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * weights[..., None])  # type: ignore[no-untyped-call]
    return -(weights * log_weights).sum(dim=0)
