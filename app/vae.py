"""One served model: what a VAE can do. Images are uint8 `[N, H, W, C]`, latents float32 `[N, *latent]`."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from app import gaussian
from app.batcher import Batcher
from app.bundle import Bundle, Manifest
from app.errors import InvalidInput
from app.gaussian import Floats, Posterior, Quantiles, squared_norm
from app.graphs import Graphs
from app.likelihood import Doubles, binarize, threshold
from app.score import Binarize, Scores, score
from app.session import ExecutionProvider
from app.tables import Tables

Pixels = NDArray[np.uint8]
Source = Literal["prior", "aggregate"]
Method = Literal["auto", "lerp", "slerp"]
Mode = Literal["mean", "draw", "predictive"]
Result = TypeVar("Result")

PREDICTIVE_DRAWS = 32
"""Decoded draws that the posterior predictive averages."""
INLINE_ELEMENTS = 16_384
"""Draws that take the event loop less time than it would lose by a thread: some tenths of a millisecond."""
CHUNK = 1024
"""Rows that one request has in the queue at a time where each of its images makes many: some MB of them."""

WIDEST = np.float32(30)
"""Largest `log_std`, a standard deviation of 1e13: of an image unlike any that it learnt from an encoder may say far
more, and neither draws nor their scores would be finite."""


class Vae:
    """Encoder and decoder of one bundle, ready to run."""

    def __init__(
        self,
        bundle: Bundle,
        batcher: Batcher,
        *,
        execution_provider: ExecutionProvider = "cpu",
        threads: int = 1,
        queue_seconds: float = 30,
    ) -> None:
        """Load both graphs and run each once; see `Graphs`.

        Raises:
            BundleError: a graph or an array is not what the manifest says, or cannot be served.
            ExecutionProviderError: a graph fell back to another provider.
        """
        self.manifest: Manifest = bundle.manifest
        self.execution_provider = execution_provider
        self.digest = self.manifest.digest
        self.graphs = Graphs(
            bundle, batcher, execution_provider=execution_provider, threads=threads, queue_seconds=queue_seconds
        )
        self.tables = Tables.of(bundle)
        self.image_shape, self.latent_shape = self.graphs.image_shape, self.graphs.latent_shape

    async def encode(self, images: Pixels) -> Posterior:
        """q(z|x) of images `[N, H, W, C]`."""
        return await self._encode(_planes(images))

    async def _encode(self, rows: Pixels) -> Posterior:
        outputs = await self.graphs.run("encoder", rows)
        log_std = outputs.get("log_std")
        return Posterior(outputs["mean"], None if log_std is None else np.minimum(log_std, WIDEST))

    async def decode(self, latents: Floats) -> Pixels:
        """Images `[N, H, W, C]`, the decoder's mean, of latents `[N, *latent]`."""
        outputs = await self.graphs.run("decoder", latents)
        return np.ascontiguousarray(outputs["image"].transpose(0, 2, 3, 1))

    def draw(self, posterior: Posterior, seed: int, pointer: str = "/query/draw") -> Floats:
        """One draw from the posterior a row; `pointer` is what asked for it.

        Raises:
            InvalidInput: this model's encoder is deterministic.
        """
        self._log_std(posterior, pointer)
        return posterior.draw(seed)

    def _log_std(self, posterior: Posterior, pointer: str) -> Floats:
        if posterior.log_std is None:
            raise InvalidInput("this model's encoder is deterministic: there is no posterior to draw from", pointer)
        return posterior.log_std

    async def reconstruct(self, images: Pixels, mode: Mode, seed: int) -> Pixels:
        """Images `[N, H, W, C]` encoded and decoded: by the posterior's mean, by one draw, or the posterior predictive,
        which is the average of what 32 draws decode to.

        Raises:
            InvalidInput: draws are asked for, and this model's encoder is deterministic.
        """
        with self.graphs.held("decoder", decodings(mode, len(images))):
            posterior = await self.encode(images)
            if mode == "mean":
                return await self.decode(posterior.mean)
            if mode == "draw" or posterior.log_std is None:  # which `draw` refuses
                return await self.decode(self.draw(posterior, seed, "/query/mode"))
            return await self._predict(posterior, len(images), seed)

    async def _predict(self, posterior: Posterior, count: int, seed: int) -> Pixels:
        """The posterior predictive of `count` images."""
        averages, size = [], CHUNK // PREDICTIVE_DRAWS
        for first in range(0, count, size):
            rows = range(first, min(first + size, count))
            _, drawn = posterior.draws(seed, rows, PREDICTIVE_DRAWS)
            decoded = await self.decode(drawn.reshape(-1, *self.latent_shape))
            averages.append(decoded.reshape(len(rows), PREDICTIVE_DRAWS, *self.image_shape).mean(axis=1))
        return np.round(np.concatenate(averages)).astype(np.uint8)

    async def score(
        self, images: Pixels, *, k: int, seed: int, how: Binarize | None, explain: bool = False
    ) -> tuple[Scores, Binarize]:
        """How well the model explains images `[N, H, W, C]`, from `k` draws each, and how they were binarized; with
        `explain`, pixel by pixel, too.

        Raises:
            InvalidInput: this model has no likelihood of images, or none of images made binary as `how` says.
        """
        how = self._how_to_binarize(how)
        with self.graphs.held("explain" if explain else "score", scorings(k, len(images))):
            rows = self._binarized(_planes(images), how, seed)
            posterior = await self._encode(rows)
            elements = posterior.mean.size * k
            eps, latents = await _computed(elements, posterior.draws, seed, range(len(rows)), k)
            log_p_x, explanation = await self._explained(latents, rows.reshape(len(rows), -1), explain)
        calibration = self.tables.calibration if how == self._how_to_binarize(None) else None
        scores = await _computed(elements, score, log_p_x, posterior, eps, latents, calibration)
        return replace(scores, explanation=explanation), how

    def _binarized(self, rows: Pixels, how: Binarize, seed: int) -> Pixels:
        """Images `[N, C, H, W]` as the likelihood takes them."""
        if how == "draw":
            return binarize(rows, seed)
        if how == "threshold":
            return threshold(rows)
        if self.manifest.likelihood == "bernoulli":
            _check_binary(rows)
        return rows

    async def _explained(self, latents: Floats, pixels: Pixels, explain: bool) -> tuple[Doubles, Floats | None]:
        """log p(x|z) `[N, k]` of `latents` `[N, k, d]` and `pixels` `[N, C * H * W]`; and, if wanted, -log p(x_i|z) of
        each pixel, summed over channels and averaged over the draws, `[N, H, W]`."""
        count, k, _ = latents.shape
        flat, pieces, terms = latents.reshape(count * k, -1), [], np.zeros(pixels.shape if explain else 0, np.float32)
        for first in range(0, len(flat), CHUNK):
            drawn = flat[first : first + CHUNK]
            images = np.arange(first, first + len(drawn)) // k
            explained = pixels[images].astype(np.float32) / np.float32(255)
            outputs = await self.graphs.score(np.concatenate([drawn, explained], axis=1), explain=explain)
            pieces.append(outputs["log_p_x"])
            if explain:
                own, starts = np.unique(images, return_index=True)  # in their order: each image's draws lie together
                terms[own] += np.add.reduceat(outputs["log_p_pixels"], starts, axis=0)
        log_p_x = np.concatenate(pieces).reshape(count, k)
        if not explain:
            return log_p_x, None
        height, width, channels = self.image_shape
        return log_p_x, (-terms / k).reshape(count, channels, height, width).sum(axis=1)

    def _how_to_binarize(self, how: Binarize | None) -> Binarize:
        """How images are made what the likelihood is of: as in training, if None."""
        manifest = self.manifest
        if not self.graphs.can_score:
            raise InvalidInput("this model has no likelihood of images", "/query/model")
        if manifest.likelihood == "bernoulli":
            return how or ("threshold" if manifest.training.binarization == "static" else "draw")
        if how not in (None, "none"):
            raise InvalidInput("this model's likelihood is not of binary images", "/query/binarize")
        return "none"

    def sample(
        self,
        seed: int,
        n: int,
        *,
        temperature: float = 1.0,
        truncation: float | None = None,
        source: Source = "prior",
        label: int | None = None,
    ) -> Floats:
        """Latents `[n, *latent]` drawn from the prior or from the aggregated posterior.

        Raises:
            InvalidInput: a label without `aggregate`, or this bundle has no aggregated posterior or no such label.
        """
        if source == "prior":
            if label is not None:
                raise InvalidInput("label needs source=aggregate: the prior knows no labels", "/query/label")
            return gaussian.sample_prior(seed, n, self.latent_shape, temperature=temperature, truncation=truncation)
        mixture = self.tables.mixture
        if mixture is None:
            raise InvalidInput("this model has no aggregated posterior", "/query/source")
        if label is not None and label not in mixture.labels:
            raise InvalidInput("this model's aggregated posterior has no such label", "/query/label")
        return mixture.sample(seed, n, temperature=temperature, truncation=truncation, label=label)

    def interpolate(
        self, points: Floats, steps: int, method: Method, *, all_given: bool
    ) -> tuple[Floats, Literal["lerp", "slerp"]]:
        """A path through points `[P, *latent]`, and the method it took.

        `auto` takes slerp only through given latents (`all_given`) of more than two dimensions: those may be prior
        draws, whose norms concentrate at sqrt(d); posterior means are shorter.
        """
        if method == "auto":
            method = "slerp" if all_given and points[0].size > 2 else "lerp"
        return gaussian.interpolate(points, steps, method), method

    def traverse(self, base: Floats, dims: list[int], values: Floats) -> Floats:
        """Latents `[len(dims) * len(values), d]`: `base` `[d]`, but one of `dims` at a time takes each of `values`."""
        latents = np.tile(base, (len(dims), len(values), 1))
        for row, dim in enumerate(dims):
            latents[row, :, dim] = values
        return latents.reshape(-1, base.size)

    def vary(self, posterior: Posterior, n: int, radius: float, seed: int) -> Floats:
        """Latents `[n, *latent]` around the one posterior: z = mean + radius * exp(log_std) * eps, eps ~ N(0, I).

        Raises:
            InvalidInput: this model's encoder is deterministic.
        """
        std = np.exp(self._log_std(posterior, "/query/model"))
        eps = gaussian.standard_normal(seed, n, self.latent_shape)
        return np.asarray(posterior.mean + np.float32(radius) * std * eps, np.float32)

    def latent_percentile(self, latents: Floats) -> Doubles:
        """Per cent of prior draws that are nearer to the origin than each of `latents` `[N, *latent]`.

        Raises:
            InvalidInput: this bundle has no quantiles of them.
        """
        return _norms(self.tables.prior_norms).percentile(squared_norm(latents))

    def mean_percentile(self, means: Floats) -> Doubles:
        """Per cent of held-out images whose posterior mean is nearer to the origin than each of `means`.

        Raises:
            InvalidInput: this bundle has no quantiles of them.
        """
        return _norms(self.tables.mean_norms).percentile(squared_norm(means))

    def plane(self, grid: Floats, dims: tuple[int, int]) -> Floats:
        """Latents `[N, d]`: the origin, but for `grid` `[N, 2]` in two dimensions."""
        latents = np.zeros((len(grid), *self.latent_shape), np.float32)
        latents[:, list(dims)] = grid
        return latents

    def main_dims(self) -> tuple[int, int]:
        """The two dimensions of highest KL, in ascending order of their numbers.

        Raises:
            InvalidInput: the latent is not a vector of two or more dimensions.
        """
        if len(self.latent_shape) != 1 or self.latent_shape[0] < 2:
            raise InvalidInput("this model's latent space has no plane: it is not a vector of two or more dimensions")
        first, second = sorted(self.dims_by_kl()[:2])
        return first, second

    def dims_by_kl(self) -> list[int]:
        """The latent dimensions, the one of highest KL first; in their order, where the manifest has no KL."""
        kl = np.array(self.manifest.metrics.get("kl_per_dimension") or np.zeros(self.latent_shape))
        return [int(dim) for dim in np.argsort(-kl, kind="stable")]


def decodings(mode: Mode, images: int = 1) -> int:
    """Rows that a reconstruction of so many images has in the queue at a time, at most."""
    return min(images * PREDICTIVE_DRAWS, CHUNK) if mode == "predictive" else images


def scorings(k: int, images: int = 1) -> int:
    """The same of a score."""
    return min(images * k, CHUNK)


def _norms(quantiles: Quantiles | None) -> Quantiles:
    if quantiles is None:
        raise InvalidInput("this model has no quantiles to tell percentiles by", "/query/percentile")
    return quantiles


async def _computed(elements: int, function: Callable[..., Result], *arguments: Any) -> Result:
    """What a function of so many array elements gives, off the event loop where that takes long."""
    if elements <= INLINE_ELEMENTS:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)


def _planes(images: Pixels) -> Pixels:
    """`[N, C, H, W]`, as the graphs have them, of `[N, H, W, C]`."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _check_binary(rows: Pixels) -> None:
    grey = np.flatnonzero(((rows > 0) & (rows < 255)).reshape(len(rows), -1).any(axis=1))
    if len(grey):
        raise InvalidInput("has grey pixels: binarize it, by draw or by threshold", f"/images/{grey[0]}")
