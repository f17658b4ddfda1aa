"""Bounds on log p(x): the ELBO and the IWAE bound, and their percentiles among held-out images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypeAliasType

from app.maths.arrays import Doubles, Floats
from app.maths.gaussian import Posterior, Quantiles, log_ratio
from app.maths.likelihood import log_mean_exp

Binarize = TypeAliasType("Binarize", Literal["draw", "threshold", "none"])


@dataclass(frozen=True)
class Scores:
    """The scores of N images: `[N]` and in nats, unless stated otherwise."""

    elbo: Doubles
    """-(reconstruction + kl), a bound on log p(x), higher is better: Kingma & Welling 2014 (arXiv:1312.6114), eq. 3."""
    log_likelihood: Doubles
    """The IWAE-k bound on log p(x), higher is better: Burda et al. 2016 (arXiv:1509.00519), equation 8."""
    reconstruction: Doubles
    """-log p(x|z), averaged over the k draws."""
    kl: Doubles
    """KL(q(z|x) || N(0, I))."""
    kl_per_dimension: Doubles
    """`[N, d]`: the KL of each latent dimension."""
    effective_sample_size: Doubles
    """(sum w)^2 / sum w^2 of the k importance weights, from 1 to k: Kong 1992."""
    score_percentile: Doubles | None
    """Percentage of held-out images with a lower `log_likelihood`; None if unknown."""
    explanation: Floats | None = None
    """`[N, H, W]`: -log p(x_i|z) averaged over the k draws, whose sum is `reconstruction`; None unless asked for."""


def score(
    log_p_x: Doubles, posterior: Posterior, eps: Floats, latents: Floats, calibration: Quantiles | None
) -> Scores:
    """Scores of N images, from log p(x|z) `[N, k]` and the draws z = mean + exp(log_std) eps, both `[N, k, d]`.

    The importance weights are p(x|z) p(z) / q(z|x). `calibration` has the quantiles of the IWAE-k bound of held-out
    images.
    """
    assert posterior.log_std is not None
    log_weights = log_p_x + log_ratio(eps, latents, posterior.log_std)
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    reconstruction, kl, bound = -log_p_x.mean(axis=1), posterior.kl(), log_mean_exp(log_weights)
    return Scores(
        elbo=-(reconstruction + kl.sum(axis=1)),
        log_likelihood=bound,
        reconstruction=reconstruction,
        kl=kl.sum(axis=1),
        kl_per_dimension=kl,
        effective_sample_size=np.square(weights.sum(axis=1)) / np.square(weights).sum(axis=1),
        score_percentile=None if calibration is None else calibration.percentile(bound),
    )


def calibration_of(arrays: Mapping[str, NDArray[Any]]) -> dict[int, Quantiles]:
    """The quantiles of the IWAE-k bound of held-out images in a bundle's arrays, by k; empty if it has none."""
    if not {"percentiles", "score_k", "score_quantiles"} <= set(arrays):
        return {}
    ks, percentiles = (int(k) for k in arrays["score_k"]), arrays["percentiles"].astype(np.float64)
    values = arrays["score_quantiles"].astype(np.float64)
    return {k: Quantiles(percentiles, row) for k, row in zip(ks, values, strict=True)}
