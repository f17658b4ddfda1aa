"""What the latents of a foreign model are, found by running it: their shape, and the stride of a map."""

import math
import sys
import time
from dataclasses import dataclass

import numpy as np

from training.errors import ImportRefused
from training.importing.checks.reference import Reference
from training.importing.source import Shape

SIDES = (64, 128)
"""Pixels a side of two images that tell the stride of a model that takes any size; samples have the first."""
RUNS = 3
"""That are timed."""
PATIENCE_SECONDS = 60
"""That each of trying, comparing and proving may take, about: large nets get fewer images."""


@dataclass(frozen=True)
class Latents:
    """As the manifest has them."""

    shape: Shape
    stride: int | None
    seconds: float
    """That an image takes through both halves of the source."""

    def rows(self, least: int, most: int) -> int:
        """Images that can be waited for, within these bounds."""
        return max(least, min(most, int(PATIENCE_SECONDS / self.seconds)))


def probe(reference: Reference) -> Latents:
    """Run both halves on black images.

    Raises:
        ImportRefused: they do not run, do not fit each other, or have latents that no bundle can have.
    """
    answers = reference.answers
    if answers.height is not None and answers.width is not None:
        shape = _latent(reference, answers.height, answers.width)
        stride = _stride(reference, answers.height, answers.width, shape) if len(shape) == 3 else None
        return Latents(shape, stride, _seconds(reference, answers.height, answers.width))
    small, large = (_latent(reference, side, side) for side in SIDES)
    if len(small) != 3:
        raise ImportRefused(
            f"{reference.source.encoder.name} takes images of any size and gives latents that are no maps: pass one "
            "size with --image"
        )
    stride = _stride(reference, SIDES[0], SIDES[0], small)
    if _stride(reference, SIDES[1], SIDES[1], large) != stride or small[0] != large[0]:
        raise ImportRefused(
            f"{reference.source.encoder.name} has no one stride for all sizes: pass one size with --image"
        )
    return Latents((small[0], None, None), stride, _seconds(reference, SIDES[0], SIDES[0]))


def _seconds(reference: Reference, height: int, width: int) -> float:
    """The best of a few runs: another process may have had the CPU."""
    images, best = np.zeros((2, reference.answers.channels, height, width), np.uint8), math.inf
    for _ in range(RUNS):
        start = time.perf_counter()
        reference.decode(reference.encode(images).mean)
        best = min(best, (time.perf_counter() - start) / len(images))
    return max(best, sys.float_info.epsilon)


def _latent(reference: Reference, height: int, width: int) -> tuple[int, ...]:
    """Shape of a latent of an image of this size, which the decoder makes an image of this size of."""
    source, channels = reference.source, reference.answers.channels
    posterior = reference.encode(np.zeros((2, channels, height, width), np.uint8))
    mean = posterior.mean
    if posterior.log_std is not None and posterior.log_std.shape != mean.shape:
        center, spread = _words(mean.shape), _words(posterior.log_std.shape)
        raise ImportRefused(
            f"{source.encoder.name} gives a mean {center} and a spread {spread}, which are of one shape"
        )
    if mean.ndim not in (2, 4):
        raise ImportRefused(
            f"{source.encoder.name} gives latents {_words(mean.shape)}: a bundle has [N, d] or [N, c, h, w]"
        )
    _check_fit(reference, mean.shape)
    decoded = reference.decode(mean)
    if decoded.shape[1:] != (channels, height, width):
        wanted = _words((None, channels, height, width))
        raise ImportRefused(
            f"{source.decoder.name} makes images {_words(decoded.shape)}, and the encoder takes {wanted}"
        )
    return mean.shape[1:]


def _check_fit(reference: Reference, shape: tuple[int, ...]) -> None:
    """Refuse latents that the decoder does not take."""
    source = reference.source
    taken = source.decoder.input[1:]
    if len(taken) == 3 and reference.answers.layout == "nhwc":
        taken = (taken[2], *taken[:2])
    given = (*shape[1:], *[1] * (len(taken) - len(shape) + 1))
    if len(taken) != len(given) or any(a not in (None, b) for a, b in zip(taken, given, strict=True)):
        wanted = _words((None, *taken))
        raise ImportRefused(
            f"{source.encoder.name} gives latents {_words(shape)} and {source.decoder.name} takes {wanted}: are they "
            "of one model, and are --heads and --posterior right?"
        )


def _stride(reference: Reference, height: int, width: int, shape: tuple[int, ...]) -> int:
    _, rows, columns = shape
    if height % rows or width % columns or height // rows != width // columns:
        raise ImportRefused(
            f"{reference.source.encoder.name} makes a map of {rows} x {columns} of {height} x {width} pixels: a map "
            "has one whole stride"
        )
    return height // rows


def _words(shape: Shape) -> str:
    return f"[{', '.join(['N', *('?' if size is None else str(size) for size in shape[1:])])}]"
