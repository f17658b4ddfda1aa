"""log p(x|z) in numpy, from the parameters that a decoder graph answers, and how grey pixels become the binary ones
that a Bernoulli likelihood is of. The torch twin of the first is `training.fit.likelihood`.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from app.maths.gaussian import Floats, generator

Doubles = NDArray[np.float64]
Pixels = NDArray[np.uint8]

STREAM = 1
"""Stream of a row's generator that its pixels are drawn from; stream 0 is the latents'."""

PARAMETERS = {
    "bernoulli": ["logits"],
    "gaussian": ["mean", "log_scale"],
    "discretized_logistic": ["mean", "log_scale"],
}
"""What a decoder graph answers for each likelihood, if it is to score images."""

HALF_LEVEL = np.float32(0.5 / 255)
HALF_LOG_TAU = np.float32(0.5 * np.log(2 * np.pi))


def log_prob(likelihood: str, parameters: Mapping[str, Floats], pixels: Floats) -> Doubles:
    """log p(x|z) in nats, summed over the last axis.

    `likelihood` is the manifest's: `bernoulli` with `logits`, `gaussian` or `discretized_logistic` with `mean` and
    `log_scale`, each `[..., D]`; `pixels`, in [0, 1], broadcast against them. On pixels that are not binary the first
    is minus a cross entropy, and no likelihood.
    """
    if likelihood == "bernoulli":
        return -cross_entropy(parameters["logits"], pixels)
    density = log_normal if likelihood == "gaussian" else log_discretized_logistic
    return density(parameters["mean"], parameters["log_scale"], pixels)


def cross_entropy(logits: Floats, targets: Floats) -> Doubles:
    """Cross entropy of targets in [0, 1] under logits, summed over the last axis; -log p(x|z) if they are binary.

    max(l, 0) - l x + log(1 + exp(-|l|)), which neither overflows nor cancels.
    """
    values = np.abs(logits)
    np.negative(values, out=values)
    np.exp(values, out=values)
    np.log1p(values, out=values)
    values += np.maximum(logits, 0)
    values -= logits * targets
    return np.asarray(values.sum(axis=-1, dtype=np.float64))


def log_normal(mean: Floats, log_scale: Floats, pixels: Floats) -> Doubles:
    """log N(pixels; mean, exp(log_scale)^2), a density, summed over the last axis."""
    standard = (pixels - mean) * np.exp(-log_scale)
    return np.asarray((-0.5 * np.square(standard) - log_scale - HALF_LOG_TAU).sum(axis=-1, dtype=np.float64))


def log_discretized_logistic(mean: Floats, log_scale: Floats, pixels: Floats) -> Doubles:
    """Log mass that a logistic distribution has between the edges of each pixel's level, summed over the last axis.

    The lowest of the 256 levels takes all below it, the highest all above; between them
    log(s(b) - s(a)) = log s(b) + log s(-a) + log(1 - exp(a - b)) (s is the sigmoid, a and b are the edges).
    """
    precision = np.exp(-log_scale)
    left = _log_sigmoid((pixels + HALF_LEVEL - mean) * precision)
    right = _log_sigmoid(-(pixels - HALF_LEVEL - mean) * precision)
    inside = np.log(-np.expm1(-2 * HALF_LEVEL * precision))
    values = np.where(pixels < HALF_LEVEL, left, np.where(pixels > 1 - HALF_LEVEL, right, left + right + inside))
    return np.asarray(values.sum(axis=-1, dtype=np.float64))


def binarize(images: Pixels, seed: int) -> Pixels:
    """0 or 255, 255 with probability grey/255; what a pixel becomes depends on seed, row and place alone."""
    binary = np.empty_like(images)
    for row, image in enumerate(images):
        uniform = generator(seed, row, STREAM).random(image.shape, np.float32)
        binary[row] = np.where(uniform < image / np.float32(255), 255, 0)
    return binary


def threshold(images: Pixels) -> Pixels:
    """0 or 255, 255 from the middle of the grey levels on."""
    return np.where(images < 128, np.uint8(0), np.uint8(255))


def log_mean_exp(values: Doubles) -> Doubles:
    """log(mean(exp(values))) over the last axis, without overflow."""
    largest = values.max(axis=-1, keepdims=True)
    return np.asarray(largest[..., 0] + np.log(np.exp(values - largest).mean(axis=-1)))


def _log_sigmoid(values: Floats) -> Floats:
    return np.minimum(values, 0) - np.log1p(np.exp(-np.abs(values)))
