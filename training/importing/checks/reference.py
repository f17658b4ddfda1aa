"""The source run as its answers say, in numpy: what the graphs must give, and what other answers would give."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.maths.gaussian import Floats, Posterior
from training.errors import ImportRefused
from training.importing.options import Answers
from training.importing.source import Arrays, Source

Pixels = NDArray[np.uint8]

VALUES_A_RUN = 2**20
"""Pixels times channels that go through the source at once: its activations may be hundreds of times that."""
ANY_SIDE = 128
"""Pixels a side that this counts for images of any size; those that are tried have no more."""
TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Reference:
    """Images are uint8 `[N, C, H, W]`, latents float32 `[N, *latent]`, as in a bundle."""

    source: Source
    answers: Answers

    def encode(self, images: Pixels) -> Posterior:
        """q(z|x) as the source has it."""
        parts = [self.posterior(self.source.encoder.run(self.to_source(some))) for some in self._runs(images)]
        log_std = [part.log_std for part in parts if part.log_std is not None]
        return Posterior(np.concatenate([part.mean for part in parts]), np.concatenate(log_std) if log_std else None)

    def decode(self, latents: Floats) -> Floats:
        """What the decoder gives, as planes `[N, C, H, W]`, in its own range."""
        half = self.source.decoder
        if len(half.input) > latents.ndim:
            latents = latents.reshape(*latents.shape, *[1] * (len(half.input) - latents.ndim))
        elif latents.ndim == 4 and self.answers.layout == "nhwc":
            latents = latents.transpose(0, 2, 3, 1)
        outputs = (half.run(some.astype(half.dtype))[self.answers.picture] for some in self._runs(latents))
        return np.concatenate([self.from_source(output) for output in outputs])

    def _runs(self, rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Rows in the portions that the source can hold."""
        answers = self.answers
        size = answers.channels * (answers.height or ANY_SIDE) * (answers.width or ANY_SIDE)
        count = max(1, VALUES_A_RUN // size)
        yield from (rows[start : start + count] for start in range(0, len(rows), count))

    def to_source(self, images: Pixels) -> NDArray[Any]:
        """Images in the encoder's range, order and layout."""
        answers, half = self.answers, self.source.encoder
        low, high = np.float32(answers.range.low), np.float32(answers.range.high)
        values = images.astype(np.float32) * ((high - low) / np.float32(255)) + low
        values = values[:, ::-1] if answers.bgr else values
        if answers.layout in ("nhwc", "flat-nhwc"):
            values = values.transpose(0, 2, 3, 1)
        if answers.layout.startswith("flat"):
            values = values.reshape(len(values), -1)
        if answers.layout == "nhw":
            values = values[:, 0]
        if half.dtype.kind == "u":
            values = np.rint(values)
        return np.ascontiguousarray(values.astype(half.dtype))

    def from_source(self, output: NDArray[Any]) -> Floats:
        """Planes `[N, C, H, W]` of what the decoder gave.

        Raises:
            ImportRefused: it is no image of this layout.
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
        except ValueError:
            values = values[:0]
        fixed = (channels, height or values.shape[-2], width or values.shape[-1]) if values.ndim == 4 else ()
        if not len(values) or values.shape[1:] != fixed:
            name, shape = self.source.decoder.name, ["N", *output.shape[1:]]
            raise ImportRefused(f"{name} gives [{', '.join(map(str, shape))}], which is no image like the encoder's")
        return values[:, ::-1] if answers.bgr else values

    def posterior(self, outputs: Arrays) -> Posterior:
        """Mean and log_std of what the encoder gave."""
        answers = self.answers
        mean = outputs[answers.mean].astype(np.float32)
        axis = mean.ndim - 1 if answers.layout == "nhwc" else 1
        spread = None if answers.spread is None else outputs[answers.spread].astype(np.float32)
        if answers.is_split:
            if mean.shape[axis] % 2:
                raise ImportRefused(
                    f"{self.source.encoder.name} gives an odd number of channels: it holds no moments to split"
                )
            mean, spread = np.split(mean, 2, axis)
        log_std = None if spread is None else self._arranged(self._log_std(spread))
        return Posterior(self._arranged(mean), log_std)

    def _log_std(self, spread: Floats) -> Floats:
        answers = self.answers
        if answers.clip is not None:
            low, high = answers.clip
            spread = np.clip(spread, np.float32(low), np.float32(high))
        if answers.posterior in ("variance", "std"):
            spread = np.log(np.maximum(spread, TINY))
        return np.float32(0.5) * spread if answers.posterior in ("variance", "log-variance") else spread

    def _arranged(self, latents: Floats) -> Floats:
        """As a bundle has it: a map channels first, and a map of one cell as a vector."""
        if latents.ndim == 4 and self.answers.layout == "nhwc":
            latents = latents.transpose(0, 3, 1, 2)
        if latents.ndim == 4 and latents.shape[2:] == (1, 1) and self.answers.height is not None:
            latents = latents[:, :, 0, 0]
        return np.ascontiguousarray(latents)


def picture(values: Floats, answers: Answers) -> Pixels:
    """Grey levels of planes as the decoder gave them."""
    return np.clip(np.rint(levels(values, answers)), 0, 255).astype(np.uint8)


def levels(values: Floats, answers: Answers) -> Floats:
    """The same before rounding and clipping, 0 to 255."""
    if answers.output == "logits":
        with np.errstate(over="ignore"):
            return np.float32(255) / (np.float32(1) + np.exp(-values))
    if answers.output == "probabilities":
        return np.float32(255) * values
    low, high = np.float32(answers.output_range.low), np.float32(answers.output_range.high)
    return (values - low) * (np.float32(255) / (high - low))
