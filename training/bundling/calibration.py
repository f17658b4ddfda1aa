"""Quantiles of held-out images' latents and scores, from which the server computes percentiles.

- `percentiles` `[Q]`: 0 to 100.
- `prior_norm_quantiles` `[Q]`: |z|^2 of a draw from the prior, which is chi-square distributed with d degrees of
  freedom.
- `mean_norm_quantiles` `[Q]`: |mean|^2 of the held-out images' posteriors, of gray images as sent to `/encode`.
- `score_k` `[K]` and `score_quantiles` `[K, Q]`: the IWAE-k bound on log p(x) of the held-out images, in nats, for
  each number of draws k.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from app.maths.gaussian import Floats
from app.maths.likelihood import Doubles

LEVELS = np.linspace(0, 1, 1001)
PERCENTILES = (100 * LEVELS).astype(np.float32)
LAST_LEVEL = 1 - 1e-6
"""Replaces 1, whose chi-square quantile is infinite."""


def latent_quantiles(means: Floats) -> dict[str, NDArray[Any]]:
    """Quantiles of latents, from the held-out images' posterior means `[N, d]`."""
    squares = np.square(means, dtype=np.float64).sum(axis=1)
    prior = chi2.ppf(np.minimum(LEVELS, LAST_LEVEL), means.shape[1])
    return {
        "percentiles": PERCENTILES,
        "prior_norm_quantiles": prior.astype(np.float32),
        "mean_norm_quantiles": np.quantile(squares, LEVELS).astype(np.float32),
    }


def score_quantiles(bounds: dict[int, Doubles]) -> dict[str, NDArray[Any]]:
    """Quantiles of scores, from the held-out images' bounds `[N]` at each k."""
    ks = sorted(bounds)
    return {
        "percentiles": PERCENTILES,
        "score_k": np.array(ks, np.int64),
        "score_quantiles": np.stack([np.quantile(bounds[k], LEVELS) for k in ks]).astype(np.float32),
    }
