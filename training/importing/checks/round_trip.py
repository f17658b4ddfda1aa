"""Encode and decode sample images, and measure the reconstructions and the latents."""

from dataclasses import dataclass

import numpy as np

from app.maths import gaussian
from app.maths.gaussian import Floats
from app.maths.likelihood import Pixels
from training.importing.checks.comparison import Comparison, compare_answers, squared_error, unit
from training.importing.checks.forward import ForwardCheck, check_forward
from training.importing.checks.latents import LatentInfo
from training.importing.checks.reference import Reference, to_pixels
from training.importing.checks.samples import MIN_IMAGES, SampleImages

TRIALS = 4
"""Divides the time budget of the round trip: other answers are tried with fewer images if the model is slow."""
MAX_STD_RATIO, MAX_OFFSET = 2.0, 1.0
"""Latents count as N(0, I) if their standard deviation is within this factor of 1, and their mean this close to 0."""


@dataclass(frozen=True)
class RoundTrip:
    """The reconstructions of the samples, and their errors: mean squared errors of pixels in [0, 1]."""

    samples: SampleImages
    reconstructions: Pixels
    """Gray levels `[N, C, H, W]`."""
    posterior: gaussian.Posterior
    error: float
    mean_image_error: float
    """Error of the mean of all images in place of each reconstruction."""
    comparison: Comparison
    """The given answers and others, on the same images."""
    forward: ForwardCheck | None
    """The source's own forward pass, compared with encoder and decoder; None if it has none."""

    @property
    def std(self) -> float:
        """Standard deviation of posterior draws over all images, averaged over the dimensions."""
        mean, log_std = self.posterior.mean.astype(np.float64), self.posterior.log_std
        within = 0.0 if log_std is None else np.exp(2 * log_std.astype(np.float64)).mean(axis=0)
        return float(np.sqrt(mean.var(axis=0) + within).mean())

    @property
    def offset(self) -> float:
        """Distance of the latents' mean from 0, averaged over the dimensions."""
        return float(np.abs(self.posterior.mean.mean(axis=0, dtype=np.float64)).mean())

    @property
    def follows_prior(self) -> bool:
        """Whether the distribution of the latents is close to N(0, I)."""
        return 1 / MAX_STD_RATIO < self.std < MAX_STD_RATIO and self.offset < MAX_OFFSET

    @property
    def kl(self) -> Floats | None:
        """KL(q(z|x) || N(0, I)) per dimension, in nats, averaged over the images; None without a spread."""
        return None if self.posterior.log_std is None else self.posterior.kl().mean(axis=0)


def measure_round_trip(reference: Reference, samples: SampleImages, latents: LatentInfo) -> RoundTrip:
    """Encode and decode all samples with the given answers, and compare these with other answers on some samples."""
    answers, images = reference.answers, samples.images
    posterior = reference.encode(images)
    decoded = reference.decode(posterior.mean)
    expected = unit(images)
    mean_image = expected.mean(axis=0)
    max_trial_images = max(MIN_IMAGES, latents.affordable_rows(1, len(images) * TRIALS) // TRIALS)
    return RoundTrip(
        samples,
        to_pixels(decoded, answers),
        posterior,
        error=squared_error(decoded, answers, expected),
        mean_image_error=float(np.square(expected - mean_image).mean(dtype=np.float64)),
        comparison=compare_answers(reference, images, mean_image, max_trial_images),
        forward=check_forward(reference, images),
    )
