"""Loss terms as pure functions, in nats. The loss is the negative ELBO (lower is better), never called ELBO."""

import math

import torch
from torch import Tensor


def kl_divergence(mean: Tensor, log_std: Tensor) -> Tensor:
    """KL(N(mean, exp(log_std)^2) || N(0, I)) `[N, d]` of each latent dimension; never negative.

    0.5 * (mean^2 + exp(2 log_std) - 2 log_std - 1), from Kingma & Welling 2013, appendix B, which gives its negative.
    With expm1, rounding cannot make it negative.
    """
    return 0.5 * (mean.square() + (2 * log_std).expm1() - 2 * log_std)


def free_bits(kl: Tensor, nats: float) -> Tensor:
    """KL `[]` of a batch, from `[N, d]`: the mean over images, raised to `nats` in each dimension, then summed.

    A dimension below `nats` has no gradient, so that training does not switch it off early (Kingma et al. 2016,
    equation 15).
    """
    return kl.mean(dim=0).clamp(min=nats).sum()


def log_normal(z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log N(z; mean, exp(log_std)^2) `[*]` of `z` `[*, d]`, summed over the last axis."""
    return -(0.5 * ((z - mean) / log_std.exp()).square() + log_std + 0.5 * math.log(2 * math.pi)).sum(dim=-1)


def importance_weights(log_p_x: Tensor, z: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """log p(x|z) p(z) / q(z|x) `[k, N]` of draws `z` `[k, N, d]`; `log_p_x` `[k, N]` is log p(x|z).

    Burda, Grosse & Salakhutdinov 2015, equation 7.
    """
    zero = torch.zeros_like(mean)
    return log_p_x + log_normal(z, zero, zero) - log_normal(z, mean, log_std)


def iwae(log_weights: Tensor) -> Tensor:
    """The IWAE-k bound on log p(x) `[N]`, log 1/k sum_i w_i (Burda, Grosse & Salakhutdinov 2015, equation 8)."""
    return log_weights.logsumexp(dim=0) - math.log(len(log_weights))


def dreg_loss(log_weights: Tensor, z: Tensor) -> Tensor:
    """A loss `[N]` with the doubly reparameterized gradient of the negative IWAE-k bound; its value is not the bound.

    `log_weights` `[k, N]` must be computed with the parameters of q(z|x) detached: the encoder's gradient flows through
    `z` `[k, N, d]` alone. The decoder's gradient is weighted with the normalized weights w, the encoder's with w^2
    (Tucker, Lawson, Gu & Maddison 2018, equations 5 and 7).
    """
    weights = log_weights.detach().softmax(dim=0)
    if z.requires_grad:
        z.register_hook(lambda gradient: gradient * weights[..., None])  # type: ignore[no-untyped-call]
    return -(weights * log_weights).sum(dim=0)
