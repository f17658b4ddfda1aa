"""Scores images: binarizes and encodes them, and computes log p(x|z) of each draw. Images are uint8 `[N, H, W, C]`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from app.bundle.arrays import Tables
from app.errors import InvalidInput
from app.inference.batcher import Work
from app.inference.graphs import Graphs, Lane, planes
from app.maths.arrays import Doubles, Floats, Pixels
from app.maths.bounds import Binarize, Scores, score
from app.maths.gaussian import Posterior
from app.maths.likelihood import binarize, threshold

MAX_DRAWN_VALUES = 2**25
"""Maximum values in all latents that one request draws to score images: a few hundred MB with the other arrays."""


@dataclass(frozen=True)
class Scoring:
    """Scores the images of one request."""

    graphs: Graphs
    tables: Tables
    work: Work
    computed: Callable[..., Awaitable[Any]]
    """`Vae.computed` of the request."""

    async def score(
        self, images: Pixels, *, k: int, seed: int, how: Binarize | None, explain: bool
    ) -> tuple[Scores, Binarize]:
        """Score images `[N, H, W, C]` with `k` draws each; with `explain`, also score each pixel.

        `how` is the binarization; None means as in training. Returns the scores and the binarization used.

        Raises:
            InvalidInput: this model has no likelihood of images, or `how` does not fit its likelihood.
        """
        how = self._how_to_binarize(how)
        max_rows = self.graphs.max_queued_rows(*images.shape[1:3])
        lane: Lane = "explain" if explain else "score"
        with self.graphs.reserve(self.work, lane, min(k * len(images), max_rows)) as work:
            rows = self._binarized(planes(images), how, seed)
            encoded = await self.graphs.encode(work, rows)
            assert encoded.log_std is not None  # a model without a posterior cannot score
            posterior = Posterior(*(part.reshape(len(rows), -1) for part in (encoded.mean, encoded.log_std)))
            elements = posterior.mean.size * k
            if elements > MAX_DRAWN_VALUES:
                raise InvalidInput(
                    f"the draws have more than {MAX_DRAWN_VALUES} values together: ask for fewer draws or images",
                    "/query/k",
                )
            eps, latents = await self.computed(elements, posterior.draws, seed, range(len(rows)), k)
            log_p_x, explanation = await self._explained(work, lane, latents, rows.reshape(len(rows), -1))
        calibration = self.tables.calibration.get(k) if how == self._how_to_binarize(None) else None
        scores = await self.computed(elements, score, log_p_x, posterior, eps, latents, calibration)
        return replace(scores, explanation=explanation), how

    def _binarized(self, rows: Pixels, how: Binarize, seed: int) -> Pixels:
        """Images `[N, C, H, W]`, binarized by `how`."""
        if how == "draw":
            return binarize(rows, seed)
        if how == "threshold":
            return threshold(rows)
        if self.graphs.manifest.likelihood == "bernoulli":
            gray = np.flatnonzero(((rows > 0) & (rows < 255)).reshape(len(rows), -1).any(axis=1))
            if len(gray):
                raise InvalidInput("has gray pixels: binarize it, by draw or by threshold", f"/images/{gray[0]}")
        return rows

    async def _explained(
        self, work: Work, lane: Lane, latents: Floats, pixels: Pixels
    ) -> tuple[Doubles, Floats | None]:
        """log p(x|z) `[N, k]` of `latents` `[N, k, d]` and `pixels` `[N, C * H * W]`.

        In the lane `explain`, also -log p(x_i|z) of each pixel, summed over channels and averaged over the draws,
        `[N, H, W]`.
        """
        explain = lane == "explain"
        count, k, _ = latents.shape
        flat, pieces, terms = latents.reshape(count * k, -1), [], np.zeros(pixels.shape if explain else 0, np.float32)
        height, width, channels = self.graphs.geometry.image_shape
        max_rows = self.graphs.max_queued_rows(height, width)
        for first in range(0, len(flat), max_rows):
            drawn = flat[first : first + max_rows]
            images = np.arange(first, first + len(drawn)) // k
            explained = pixels[images].astype(np.float32) / np.float32(255)
            outputs = await self.graphs.run(work, lane, np.concatenate([drawn, explained], axis=1))
            pieces.append(outputs["log_p_x"])
            if explain:
                own, starts = np.unique(images, return_index=True)  # sorted, because the draws of an image are adjacent
                terms[own] += np.add.reduceat(outputs["log_p_pixels"], starts, axis=0)
        log_p_x = np.concatenate(pieces).reshape(count, k)
        if not explain:
            return log_p_x, None
        return log_p_x, (-terms / k).reshape(count, channels, height, width).sum(axis=1)

    def _how_to_binarize(self, how: Binarize | None) -> Binarize:
        """The binarization for `how`; None means as in training."""
        manifest = self.graphs.manifest
        if self.graphs.geometry.size is None:
            raise InvalidInput("this model takes images of any size: it cannot score them", "/query/model")
        if not self.graphs.sessions.can_score:
            raise InvalidInput("this model has no likelihood of images", "/query/model")
        if manifest.likelihood == "bernoulli":
            return how or ("threshold" if manifest.training.binarization == "static" else "draw")
        if how not in (None, "none"):
            raise InvalidInput("this model's likelihood is not of binary images", "/query/binarize")
        return "none"
