"""How well a model explains images: the ELBO, the IWAE bound, and where they lie among held-out images' own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.maths.gaussian import Floats, Posterior, log_ratio
from app.maths.likelihood import Doubles, log_mean_exp

Binarize = Literal["draw", "threshold", "none"]


@dataclass(frozen=True)
class Scores:
    """What a model says of N images. In nats, `[N]` each, where nothing else is said."""

    elbo: Doubles
    """-(reconstruction + kl); higher is better."""
    log_likelihood: Doubles
    """The IWAE-k bound on log p(x) (Burda, Grosse & Salakhutdinov 2015, equation 8); higher is better."""
    reconstruction: Doubles
    """-log p(x|z), averaged over the k draws."""
    kl: Doubles
    """KL(q(z|x) || N(0, I))."""
    kl_per_dimension: Doubles
    """`[N, d]`: the same of each latent dimension."""
    effective_sample_size: Doubles
    """(sum w)^2 / sum w^2 of the k importance weights: from 1 to k."""
    score_percentile: Doubles | None
    """Per cent of held-out images with a lower log_likelihood; None where that is not known."""
    explanation: Floats | None = None
    """`[N, H, W]`: -log p(x_i|z) of each pixel, averaged over the k draws, whose sum is `reconstruction`; if wanted."""


def score(
    log_p_x: Doubles, posterior: Posterior, eps: Floats, latents: Floats, calibration: "Calibration | None"
) -> Scores:
    """Scores of N images from log p(x|z) `[N, k]` of draws z = mean + exp(log_std) eps, both `[N, k, d]`.

    The weights are p(x|z) p(z) / q(z|x).
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
        score_percentile=None if calibration is None else calibration.percentile(log_p_x.shape[1], bound),
    )


@dataclass(frozen=True)
class Calibration:
    """The scores of held-out images as the bundle has them: `quantiles` `[Q]` at `percentiles` `[Q]`, for each k."""

    percentiles: Floats
    quantiles: dict[int, Floats]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> "Calibration | None":
        """Of a bundle's arrays; None if they lack it."""
        if not {"percentiles", "score_k", "score_quantiles"} <= set(arrays):
            return None
        ks = (int(k) for k in arrays["score_k"])
        return cls(arrays["percentiles"], dict(zip(ks, arrays["score_quantiles"], strict=True)))

    def percentile(self, k: int, log_likelihood: Doubles) -> Doubles | None:
        """Per cent of held-out images whose IWAE-k bound is lower, `[N]`; None for a k that was not measured."""
        quantiles = self.quantiles.get(k)
        return None if quantiles is None else np.asarray(np.interp(log_likelihood, quantiles, self.percentiles))
