"""The aggregated posterior, q(z) = E_x[q(z|x)], as a Gaussian mixture: what latents of real images are spread like."""

import numpy as np
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from app.gaussian import Floats, Mixture

DRAWS_A_LABEL = 5000


def components_a_label(latent: int) -> int:
    """Components that one label's latents are fitted with.

    In a plane a digit's region is curved, and its few parameters a component cost nothing. In many dimensions a full
    covariance has d (d + 3) / 2 parameters, and takes the draws of a third of a label to be known at all.
    """
    return 6 if latent <= 8 else 3


def fit_mixture(draws: Floats, labels: NDArray[np.uint8], *, seed: int) -> Mixture:
    """Fit a mixture with full covariances to latents `[N, d]`, label by label; a label weighs what its share is.

    Give it *draws* from q(z|x), one an image: the posterior means alone are spread too little.
    """
    parts = [_fit_label(draws[labels == label], int(label), len(labels), seed) for label in np.unique(labels)]
    return Mixture(
        weights=np.concatenate([part.weights for part in parts]),
        means=np.concatenate([part.means for part in parts]),
        cholesky=np.concatenate([part.cholesky for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
    )


def _fit_label(draws: Floats, label: int, total: int, seed: int) -> Mixture:
    count = components_a_label(draws.shape[1])
    fitted = GaussianMixture(count, random_state=seed).fit(draws[:DRAWS_A_LABEL].astype(np.float64))
    return Mixture(
        weights=(fitted.weights_ * (len(draws) / total)).astype(np.float32),
        means=fitted.means_.astype(np.float32),
        cholesky=np.linalg.cholesky(fitted.covariances_).astype(np.float32),
        labels=np.full(count, label, np.int64),
    )
