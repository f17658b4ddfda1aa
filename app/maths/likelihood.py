"""log p(x|z) in numpy, from a decoder's outputs, and the binarization that a Bernoulli likelihood needs.

The torch version of log p(x|z) is `training.fit.likelihood`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.maths.arrays import Doubles as Doubles
from app.maths.arrays import Floats
from app.maths.arrays import Pixels as Pixels
from app.maths.gaussian import generator

STREAM = 1
"""Stream of a row's generator for binarization; stream 0 is for latents."""

PARAMETERS = {
    "bernoulli": ["logits"],
    "gaussian": ["mean", "log_scale"],
    "discretized_logistic": ["mean", "log_scale"],
}
"""Outputs that a decoder graph must have to score images, by likelihood."""

HALF_LEVEL = np.float32(0.5 / 255)
HALF_LOG_TAU = np.float32(0.5 * np.log(2 * np.pi))


def log_prob(likelihood: str, parameters: Mapping[str, Floats], pixels: Floats) -> Doubles:
    """log p(x|z) in nats, summed over the last axis.

    The parameters are `logits` for `bernoulli`, `mean` and `log_scale` for `gaussian` and `discretized_logistic`, each
    `[..., D]`; `pixels`, in [0, 1], broadcast against them. For pixels that are not binary, `bernoulli` is minus the
    cross entropy, which is not a likelihood.
    """
    if likelihood == "bernoulli":
        return -cross_entropy(parameters["logits"], pixels)
    density = log_normal if likelihood == "gaussian" else log_discretized_logistic
    return density(parameters["mean"], parameters["log_scale"], pixels)


def cross_entropy(logits: Floats, targets: Floats) -> Doubles:
    """Cross entropy of targets in [0, 1] under logits, summed over the last axis; -log p(x|z) if they are binary.

    max(l, 0) - l x + log(1 + exp(-|l|)), which neither overflows nor cancels; as TensorFlow's
    `sigmoid_cross_entropy_with_logits` documents.
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
    """Log probability of each pixel's level under a discretized logistic distribution, summed over the last axis.

    Salimans et al. 2017 (arXiv:1701.05517), section 2.1, with one component. The lowest of the 256 levels gets all
    mass below it, the highest all mass above it. Between them, with the sigmoid s and the level's edges a and b,
    log(s(b) - s(a)) = log s(b) + log s(-a) + log(1 - exp(a - b)).
    """
    precision = np.exp(-log_scale)
    left = _log_sigmoid((pixels + HALF_LEVEL - mean) * precision)
    right = _log_sigmoid(-(pixels - HALF_LEVEL - mean) * precision)
    inside = np.log(-np.expm1(-2 * HALF_LEVEL * precision))
    values = np.where(pixels < HALF_LEVEL, left, np.where(pixels > 1 - HALF_LEVEL, right, left + right + inside))
    return np.asarray(values.sum(axis=-1, dtype=np.float64))


def binarize(images: Pixels, seed: int) -> Pixels:
    """Draw each pixel as 255 with probability pixel / 255, else 0: dynamic binarization, Salakhutdinov & Murray 2008.

    A drawn pixel depends only on the seed, the row and its position.
    """
    binary = np.empty_like(images)
    for row, image in enumerate(images):
        uniform = generator(seed, row, STREAM).random(image.shape, np.float32)
        binary[row] = np.where(uniform < image / np.float32(255), 255, 0)
    return binary


def threshold(images: Pixels) -> Pixels:
    """255 for pixels of 128 and above, else 0."""
    return np.where(images < 128, np.uint8(0), np.uint8(255))


def mean_image(outputs: Mapping[str, NDArray[Any]]) -> Floats:
    """E[x|z] `[N, C, H, W]` from a decoder's outputs, with black at 0 and white at 1.

    It is rounded to 255 levels and clipped only if the decoder has no output but `image`.
    """
    if "logits" in outputs:
        return np.asarray(np.exp(_log_sigmoid(outputs["logits"])))
    if "mean" in outputs:
        return np.asarray(outputs["mean"])
    return np.asarray(outputs["image"] / np.float32(255))


def log_mean_exp(values: Doubles) -> Doubles:
    """log(mean(exp(values))) over the last axis, without overflow."""
    largest = values.max(axis=-1, keepdims=True)
    return np.asarray(largest[..., 0] + np.log(np.exp(values - largest).mean(axis=-1)))


def _log_sigmoid(values: Floats) -> Floats:
    return np.minimum(values, 0) - np.log1p(np.exp(-np.abs(values)))
