"""The foreign model with pre- and postprocessing in numpy: the expected outputs of a bundle's graphs.

It can also compute them for other answers. `training.importing.onnx_edits.wrapper` does the same in ONNX.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.maths.gaussian import Floats, Posterior
from app.maths.likelihood import Pixels
from training.errors import ImportRefused
from training.importing.options import Answers, PixelRange, each
from training.importing.source import Arrays, Source, shape_text

MAX_VALUES_PER_RUN = 2**20
"""Maximum of pixels times channels in one run of the source. Activations may take hundreds of times that memory."""
ASSUMED_SIDE = 128
"""Pixels per side assumed for images of any size, to limit the memory of a run. No image tried here is larger."""
TINY = np.finfo(np.float32).tiny
"""Minimum variance or standard deviation: its logarithm is finite."""


@dataclass(frozen=True)
class Reference:
    """A source and the answers about it. Images are uint8 `[N, C, H, W]`, latents float32 `[N, *latent]`."""

    source: Source
    answers: Answers

    def encode(self, images: Pixels) -> Posterior:
        """q(z|x) as the source computes it.

        Raises:
            ImportRefused: the encoder's output cannot be split into mean and spread.
        """
        parts = [self._posterior(self.source.encoder.run(self.to_source(rows))) for rows in self.portions(images)]
        log_std = [part.log_std for part in parts if part.log_std is not None]
        return Posterior(np.concatenate([part.mean for part in parts]), np.concatenate(log_std) if log_std else None)

    def decode(self, latents: Floats) -> Floats:
        """The decoder's images as planes `[N, C, H, W]`, in the decoder's own range.

        Raises:
            ImportRefused: the decoder's output is not an image of the expected layout.
        """
        decoder = self.source.decoder
        if len(decoder.input) > latents.ndim:
            latents = latents.reshape(*latents.shape, *[1] * (len(decoder.input) - latents.ndim))
        elif latents.ndim == 4 and self.answers.layout == "nhwc":
            latents = latents.transpose(0, 2, 3, 1)
        outputs = (
            decoder.run(rows.astype(decoder.dtype))[self.answers.image_output] for rows in self.portions(latents)
        )
        return np.concatenate([self.to_planes(output) for output in outputs])

    def portions(self, rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Images or latents in portions that one run of the source has memory for."""
        answers = self.answers
        size = answers.channels * (answers.height or ASSUMED_SIDE) * (answers.width or ASSUMED_SIDE)
        count = max(1, MAX_VALUES_PER_RUN // size)
        yield from (rows[start : start + count] for start in range(0, len(rows), count))

    def to_source(self, images: Pixels) -> NDArray[Any]:
        """Images in the encoder's range, channel order and layout."""
        answers, dtype = self.answers, self.source.encoder.dtype
        low, high = bounds(answers.range)
        planes = images[:, ::-1] if answers.bgr else images
        values = planes.astype(np.float32) * ((high - low) / np.float32(255)) + low
        if answers.layout in ("nhwc", "flat-nhwc"):
            values = values.transpose(0, 2, 3, 1)
        if answers.layout.startswith("flat"):
            values = values.reshape(len(values), -1)
        if answers.layout == "nhw":
            values = values[:, 0]
        if dtype.kind == "u":
            values = np.rint(values)
        return np.ascontiguousarray(values.astype(dtype))

    def to_planes(self, output: NDArray[Any]) -> Floats:
        """The decoder's output as planes `[N, C, H, W]`.

        Raises:
            ImportRefused: it is not an image of the expected layout.
        """
        answers, values = self.answers, output.astype(np.float32)
        channels, height, width = answers.channels, answers.height, answers.width
        try:
            if answers.layout == "flat":
                values = values.reshape(len(values), channels, height or 0, width or 0)
            elif answers.layout == "flat-nhwc":
                values = values.reshape(len(values), height or 0, width or 0, channels)
            elif answers.layout == "nhw":
                values = values.reshape(len(values), 1, *values.shape[1:])
            if answers.layout in ("nhwc", "flat-nhwc"):
                values = values.transpose(0, 3, 1, 2)
        except (TypeError, ValueError):  # a scalar has no rows
            values = np.empty(0, np.float32)
        expected = (channels, height or values.shape[-2], width or values.shape[-1]) if values.ndim == 4 else None
        if not values.size or values.shape[1:] != expected:
            shape = shape_text(output.shape)
            raise ImportRefused(f"{self.source.decoder.name} gives {shape}, which is not an image like the encoder's")
        return values[:, ::-1] if answers.bgr else values

    def _posterior(self, outputs: Arrays) -> Posterior:
        answers = self.answers
        mean = outputs[answers.mean].astype(np.float32)
        axis = mean.ndim - 1 if answers.layout == "nhwc" else 1
        spread = None if answers.spread is None else outputs[answers.spread].astype(np.float32)
        if answers.is_split:
            if mean.shape[axis] % 2:
                raise ImportRefused(
                    f"{self.source.encoder.name} gives an odd number of channels, which cannot be split into mean and "
                    "spread"
                )
            mean, spread = np.split(mean, 2, axis)
        log_std = None if spread is None else self._to_bundle_latent(self._log_std(spread))
        return Posterior(self._to_bundle_latent(mean), log_std)

    def _log_std(self, spread: Floats) -> Floats:
        answers = self.answers
        if answers.clip is not None:
            low, high = answers.clip
            spread = np.clip(spread, np.float32(low), np.float32(high))
        if answers.posterior in ("variance", "std"):
            spread = np.log(np.maximum(spread, TINY))
        return np.float32(0.5) * spread if answers.posterior in ("variance", "log-variance") else spread

    def _to_bundle_latent(self, latents: Floats) -> Floats:
        """Latents in a bundle's layout: a map has its channels first, and a map of 1 x 1 is a vector."""
        if latents.ndim == 4 and self.answers.layout == "nhwc":
            latents = latents.transpose(0, 3, 1, 2)
        if latents.ndim == 4 and latents.shape[2:] == (1, 1) and self.answers.height is not None:
            latents = latents[:, :, 0, 0]
        return np.ascontiguousarray(latents)


def bounds(pixel_range: PixelRange, *, reverse: bool = False) -> tuple[Floats, Floats]:
    """Values of black and white to compute with planes `[N, C, H, W]`: float32 `[1, 1, 1]` or `[C, 1, 1]`.

    `reverse` reverses the order of the channels.
    """
    low, high = (np.array(each(bound), np.float32).reshape(-1, 1, 1) for bound in (pixel_range.low, pixel_range.high))
    return (low[::-1], high[::-1]) if reverse else (low, high)


def to_pixels(planes: Floats, answers: Answers) -> Pixels:
    """Gray levels of the decoder's planes, rounded and clipped to uint8."""
    return np.clip(np.rint(to_levels(planes, answers)), 0, 255).astype(np.uint8)


def to_levels(planes: Floats, answers: Answers) -> Floats:
    """Gray levels of the decoder's planes, float32, nominally 0 to 255."""
    if answers.output == "logits":
        with np.errstate(over="ignore"):
            return np.float32(255) / (np.float32(1) + np.exp(-planes))
    if answers.output == "probabilities":
        return np.float32(255) * planes
    low, high = bounds(answers.output_range, reverse=answers.bgr)
    return (planes - low) * (np.float32(255) / (high - low))
