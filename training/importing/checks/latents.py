"""Shape and stride of a foreign model's latents, and its run time per image, found by running the model."""

import math
import sys
import time
from dataclasses import dataclass

import numpy as np

from training.errors import ImportRefused
from training.importing.checks.reference import Reference
from training.importing.source import Shape, shape_text

SIDES = (64, 128)
"""Pixels per side of the two images that show the stride of a model of any size. Sample images have the first."""
TIMED_RUNS = 3
PATIENCE_SECONDS = 60
"""Time budget of each check. Slow models are tested with fewer images."""


@dataclass(frozen=True)
class LatentInfo:
    """The latents of a foreign model."""

    shape: Shape
    """`[d]`, `[c, h, w]`, or `[c, None, None]` if images may have any size."""
    stride: int | None
    """Pixels per cell of a map; None for vectors."""
    seconds: float
    """Seconds that one image takes through encoder and decoder."""

    def affordable_rows(self, minimum: int, maximum: int) -> int:
        """Number of images that fit the time budget, within these bounds."""
        return max(minimum, min(maximum, int(PATIENCE_SECONDS / self.seconds)))


def probe_latents(reference: Reference) -> LatentInfo:
    """Run encoder and decoder on black images.

    Raises:
        ImportRefused: they do not run, do not fit each other, or have latents that a bundle cannot have.
    """
    answers, name = reference.answers, reference.source.encoder.name
    if answers.height is not None and answers.width is not None:
        shape = _latent_shape(reference, answers.height, answers.width)
        stride = _stride(reference, answers.height, answers.width, shape) if len(shape) == 3 else None
        return LatentInfo(shape, stride, _seconds(reference, answers.height, answers.width))
    small, large = (_latent_shape(reference, side, side) for side in SIDES)
    if len(small) != 3:
        raise ImportRefused(
            f"{name} takes images of any size, and returns latents that are not maps: pass one size with --image"
        )
    stride = _stride(reference, SIDES[0], SIDES[0], small)
    if _stride(reference, SIDES[1], SIDES[1], large) != stride or small[0] != large[0]:
        raise ImportRefused(f"{name} does not have the same stride for all sizes: pass one size with --image")
    return LatentInfo((small[0], None, None), stride, _seconds(reference, SIDES[0], SIDES[0]))


def _seconds(reference: Reference, height: int, width: int) -> float:
    """Seconds per image: the minimum of a few runs, since other processes only add time."""
    images, best = np.zeros((2, reference.answers.channels, height, width), np.uint8), math.inf
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        reference.decode(reference.encode(images).mean)
        best = min(best, (time.perf_counter() - start) / len(images))
    return max(best, sys.float_info.epsilon)


def _latent_shape(reference: Reference, height: int, width: int) -> tuple[int, ...]:
    """Shape of the latent of an image of this size. The decoder must make an image of the same size from it."""
    source, channels = reference.source, reference.answers.channels
    posterior = reference.encode(np.zeros((2, channels, height, width), np.uint8))
    mean = posterior.mean
    if posterior.log_std is not None and posterior.log_std.shape != mean.shape:
        raise ImportRefused(
            f"{source.encoder.name} gives a mean {shape_text(mean.shape)} and a spread "
            f"{shape_text(posterior.log_std.shape)}, which must have the same shape"
        )
    if mean.ndim not in (2, 4):
        raise ImportRefused(
            f"{source.encoder.name} gives latents {shape_text(mean.shape)}: a bundle has [N, d] or [N, c, h, w]"
        )
    _check_fit(reference, mean.shape)
    decoded = reference.decode(mean)
    if decoded.shape[1:] != (channels, height, width):
        raise ImportRefused(
            f"{source.decoder.name} makes images {shape_text(decoded.shape)}, and the encoder takes "
            f"{shape_text((None, channels, height, width))}"
        )
    return mean.shape[1:]


def _check_fit(reference: Reference, shape: tuple[int, ...]) -> None:
    source = reference.source
    taken = source.decoder.input[1:]
    if len(taken) == 3 and reference.answers.layout == "nhwc":
        taken = (taken[2], *taken[:2])
    given = (*shape[1:], *[1] * (len(taken) - len(shape) + 1))
    if len(taken) != len(given) or any(a not in (None, b) for a, b in zip(taken, given, strict=True)):
        raise ImportRefused(
            f"{source.encoder.name} gives latents {shape_text(shape)} and {source.decoder.name} takes "
            f"{shape_text((None, *taken))}: are they of one model, and are --heads and --posterior right?"
        )


def _stride(reference: Reference, height: int, width: int, shape: tuple[int, ...]) -> int:
    _, rows, columns = shape
    if height % rows or width % columns or height // rows != width // columns:
        raise ImportRefused(
            f"{reference.source.encoder.name} makes a map of {rows} x {columns} from {height} x {width} pixels: a map "
            "must have one whole stride"
        )
    return height // rows
