"""The operations of one served model. Images are uint8 `[N, H, W, C]`, latents float32 `[N, *latent]`."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypeAliasType

from app.bundle.arrays import Tables
from app.bundle.files import Bundle
from app.bundle.manifest import Manifest
from app.errors import InvalidInput
from app.inference.batcher import Batcher, Work
from app.inference.graphs import Graphs, Lane, ServingOptions
from app.maths import gaussian
from app.maths.arrays import Arrays, Doubles, Floats, Pixels
from app.maths.bounds import Binarize, Scores
from app.maths.gaussian import Posterior, Quantiles, squared_norm
from app.maths.likelihood import mean_image
from app.observability.timing import Timing
from app.vae.points import Decoded, Points, finite_latents
from app.vae.scoring import Scoring

Result = TypeVar("Result")
SampleSource = TypeAliasType("SampleSource", Literal["prior", "aggregate"])
InterpolateMethod = TypeAliasType("InterpolateMethod", Literal["auto", "lerp", "slerp"])
ReconstructMode = TypeAliasType("ReconstructMode", Literal["mean", "draw", "predictive"])

PREDICTIVE_DRAWS = 32
"""Decoded draws that the posterior predictive averages."""


DEFAULT_OPTIONS = ServingOptions()


class Vae:
    """One served model.

    A method that runs several graphs, or more rows than one request has in the queue at a time, first reserves room in
    the queue.
    """

    def __init__(
        self,
        bundle: Bundle,
        batcher: Batcher,
        options: ServingOptions = DEFAULT_OPTIONS,
    ) -> None:
        """Load both graphs and run each once; see `Graphs`.

        Raises:
            BundleError: a graph or an array is not what the manifest says, or cannot be served.
            ExecutionProviderError: a graph fell back to another provider.
        """
        self.manifest: Manifest = bundle.manifest
        self.execution_provider = options.execution_provider
        self.digest = self.manifest.digest
        self.graphs = Graphs(bundle, batcher, options)
        self.geometry = self.graphs.geometry
        self.tables, self._max_pixels = Tables.of(bundle), options.max_pixels
        self._work, self._scale, self._offload = Work(Timing()), 1, batcher.offload

    def for_request(self, timing: Timing) -> "Vae":
        """A view of this model for one request.

        The model's name and version are set in `timing`, and the seconds of graph runs are added there.
        """
        timing.model, timing.version = self.manifest.name, self.manifest.version
        return self._view(_work=Work(timing))

    @property
    def caller(self) -> str:
        """Who sent the request that this view is for."""
        return self._work.timing.caller

    def enlarged(self, scale: int) -> "Vae":
        """A view of this model for a response whose images have sides `scale` times as long; see `check_pixels`."""
        return self._view(_scale=scale)

    def _view(self, **changes: Any) -> "Vae":
        """The same model, with other attributes, such as the request `_work` that its graphs run for."""
        view = Vae.__new__(Vae)
        vars(view).update(vars(self), **changes)
        return view

    @contextmanager
    def _reserved(self, lane: Lane, rows: int, size: tuple[int, ...] | None = None) -> Iterator["Vae"]:
        """A view with room in the queue for `rows` of a lane, until the block ends; see `Graphs.reserve`."""
        with self.graphs.reserve(self._work, lane, rows, size) as work:
            yield self._view(_work=work)

    def check_admission(self, lane: Lane, rows: int) -> None:
        """Raise if the queue has no room for `rows` of this request; see `Graphs.check_admission`."""
        self.graphs.check_admission(self._work, lane, rows)

    async def computed(self, elements: int, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return `function(*arguments)`, which makes this many array elements; see `Offload.computed`."""
        return await self._offload.computed(self.caller, elements, function, *arguments)

    async def offloaded(
        self, seconds: float, function: Callable[[], Result], *, memory: int = 0, is_first: bool = True
    ) -> Result:
        """Return `function()`, which takes about `seconds` in a thread; see `Offload.run`."""
        return await self._offload.run(self.caller, seconds, function, memory=memory, is_first=is_first)

    def check_pixels(self, count: int, size: tuple[int, ...], pointer: str = "") -> None:
        """Raise if `count` images of this height and width have too many pixels; `pointer` is for the error.

        Raises:
            InvalidInput: they would have more pixels than one request may make, or will have when they are enlarged.
        """
        pixels = count * size[0] * size[1]
        if pixels * self._scale**2 > self._max_pixels:
            pointer = pointer if pixels > self._max_pixels else "/query/scale"
            raise InvalidInput(f"the images would have more than {self._max_pixels} pixels together", pointer)

    def check_scale(self, shape: tuple[int, ...]) -> None:
        """Raise if images `[N, H, W, C]` that are not decoded, such as a plot, are too large to be enlarged.

        Raises:
            InvalidInput: they will have more pixels than one request may make when they are enlarged.
        """
        if self._scale > 1:
            self.check_pixels(shape[0], shape[1:3], "/query/scale")

    async def encode(self, images: Pixels) -> Posterior:
        """q(z|x) of images `[N, H, W, C]`."""
        return await self.graphs.encode(self._work, await self._reordered(images, (0, 3, 1, 2)))

    async def run_graph(self, lane: Lane, rows: NDArray[Any], seconds: float | None = None) -> Arrays:
        """The outputs `[N, ...]` of one lane for its input rows; see `Graphs.run`."""
        return await self.graphs.run(self._work, lane, rows, seconds)

    async def decode(self, latents: Floats) -> Pixels:
        """Images `[N, H, W, C]`, the decoder's mean, of latents `[N, *latent]`.

        Raises:
            InvalidInput: they would have more pixels than one request may make.
        """
        self.check_pixels(len(latents), self.geometry.image_of(latents.shape[1:]))
        return await self._decode(latents)

    async def decode_floats(self, latents: Floats) -> Floats:
        """As `decode`, but `[N, C, H, W]` and not rounded to levels, with black at 0 and white at 1; see `mean_image`.

        Raises:
            InvalidInput: as `decode`.
        """
        self.check_pixels(len(latents), self.geometry.image_of(latents.shape[1:]))
        outputs = await self.run_graph("parameters", latents)
        return await self.computed(outputs["image"].size, mean_image, outputs)

    async def _decode(self, latents: Floats) -> Pixels:
        outputs = await self.run_graph("decoder", latents)
        return await self._reordered(outputs["image"], (0, 2, 3, 1))

    async def _reordered(self, pixels: Pixels, axes: tuple[int, ...]) -> Pixels:
        """Pixels with their axes in this order, contiguous; in a thread if that copies much."""
        view = pixels.transpose(axes)
        return view if view.flags.c_contiguous else await self.computed(view.size, np.ascontiguousarray, view)

    async def decode_latents(self, latents: Floats, *, percentile: bool) -> Decoded:
        """Decode latents `[N, *latent]`; with `percentile`, also compute their `latent_percentile`.

        Raises:
            InvalidInput: `percentile` is true, and this bundle has no quantiles; or as `decode`.
        """
        latent_percentile = self.latent_percentile(latents) if percentile else None
        return Decoded(latents, await self.decode(latents), latent_percentile)

    async def draw(self, posterior: Posterior, seed: int, pointer: str = "/query/draw") -> Floats:
        """One draw from the posterior per row; `pointer` is the JSON pointer for errors.

        Raises:
            InvalidInput: this model's encoder is deterministic.
        """
        self._log_std(posterior, pointer)
        return await self.computed(posterior.mean.size, posterior.draw, seed)

    def _log_std(self, posterior: Posterior, pointer: str) -> Floats:
        if posterior.log_std is None:
            raise InvalidInput("this model's encoder is deterministic: there is no posterior to draw from", pointer)
        return posterior.log_std

    async def reconstruct(self, images: Pixels, mode: ReconstructMode, seed: int) -> Pixels:
        """Encode and decode images `[N, H, W, C]`.

        `mode` is `mean`, to decode the posterior mean; `draw`, one draw from the posterior; or `predictive`, the
        posterior predictive: the average of 32 decoded draws.

        Raises:
            InvalidInput: draws are asked for, but this model's encoder is deterministic.
        """
        max_rows = self.graphs.max_queued_rows(*images.shape[1:3])
        rows = min(len(images) * PREDICTIVE_DRAWS, max_rows) if mode == "predictive" else len(images)
        with self._reserved("decoder", rows, images.shape[1:3]) as vae:
            posterior = await vae.encode(images)
            if mode == "mean":
                return await vae.decode(posterior.mean)
            if mode == "draw" or posterior.log_std is None:  # `draw` raises for it
                return await vae.decode(await vae.draw(posterior, seed, "/query/mode"))
            return await vae._predict(posterior, seed, max_rows)

    async def _predict(self, posterior: Posterior, seed: int, max_rows: int) -> Pixels:
        """The posterior predictive, with at most `max_rows` draws in the queue at a time."""
        count, *shape = posterior.mean.shape
        self.check_pixels(count, self.geometry.image_of(shape))
        max_images, max_draws, predicted = max(1, max_rows // PREDICTIVE_DRAWS), min(max_rows, PREDICTIVE_DRAWS), []
        for first in range(0, count, max_images):
            rows = range(first, min(first + max_images, count))
            elements = len(rows) * PREDICTIVE_DRAWS * posterior.mean[0].size
            _, latents = await self.computed(elements, posterior.draws, seed, rows, PREDICTIVE_DRAWS)
            total: NDArray[np.uint16] | int = 0
            for draw in range(0, PREDICTIVE_DRAWS, max_draws):
                images = await self._decode(latents[:, draw : draw + max_draws].reshape(-1, *shape))
                total += images.reshape(len(rows), -1, *images.shape[1:]).sum(axis=1, dtype=np.uint16)
            predicted += [np.round(image / PREDICTIVE_DRAWS).astype(np.uint8) for image in np.asarray(total)]
        return np.stack(predicted)

    async def score(
        self, images: Pixels, *, k: int, seed: int, how: Binarize | None, explain: bool = False
    ) -> tuple[Scores, Binarize]:
        """How well the model explains images; see `Scoring.score`."""
        scoring = Scoring(self.graphs, self.tables, self._work, self.computed)
        return await scoring.score(images, k=k, seed=seed, how=how, explain=explain)

    async def sample_prior(
        self,
        seed: int,
        n: int,
        *,
        size: tuple[int, int] | None = None,
        temperature: float = 1.0,
        truncation: float | None = None,
    ) -> Floats:
        """Draw latents `[n, *latent]` from the prior; see `gaussian.sample_prior`.

        `size` is height and width of their images, if the model has no fixed size.

        Raises:
            InvalidInput: this model's latents follow no prior; or too many pixels.
        """
        self.check_prior()
        shape = self.geometry.latent_shape if size is None else self.geometry.latent_of(*size)
        self.check_pixels(n, self.geometry.image_of(shape), "/query/n")
        draw = partial(gaussian.sample_prior, seed, n, shape, temperature=temperature, truncation=truncation)
        return await self.computed(n * math.prod(shape), draw)

    def sample_aggregate(
        self,
        seed: int,
        n: int,
        *,
        temperature: float = 1.0,
        truncation: float | None = None,
        label: int | None = None,
    ) -> Floats:
        """Draw latents `[n, d]` from the aggregated posterior; see `Mixture.sample`.

        Raises:
            InvalidInput: this bundle has no aggregated posterior, or it has no such label.
        """
        mixture = self.tables.mixture
        if mixture is None:
            raise InvalidInput("this model has no aggregated posterior", "/query/source")
        if label is not None and label not in mixture.labels:
            raise InvalidInput("this model's aggregated posterior has no such label", "/query/label")
        return mixture.sample(seed, n, temperature=temperature, truncation=truncation, label=label)

    def check_prior(self, pointer: str = "/query/model") -> None:
        """Raise if this model has no prior to draw from; `pointer` is the JSON pointer for errors.

        Raises:
            InvalidInput: this model's latents follow no prior.
        """
        if self.manifest.latent.prior is None:
            raise InvalidInput("this model's latents follow no prior that could be drawn from", pointer)

    async def interpolate(
        self, points: Points, steps: int, method: InterpolateMethod, *, percentile: bool = False
    ) -> tuple[Decoded, Literal["lerp", "slerp"]]:
        """Decode a path through points, `steps` images from each to the next, both included.

        `auto` uses slerp only through given latents of more than two dimensions: they may be prior draws, whose norms
        concentrate at sqrt(d); posterior means are shorter. Returns the decoded path, and the method used.

        Raises:
            InvalidInput: the images have too many pixels; the path is not finite; or as `decode_latents`.
        """
        count = (len(points) - 1) * (steps - 1) + 1
        if method == "auto":
            method = "slerp" if points.all_latents and points.latents[0].size > 2 else "lerp"
        with self._reserved("decoder", count) as vae:
            self.check_pixels(count, self.geometry.image_of(points.latents.shape[1:]), "/steps")
            ends = await vae._located(points)
            path = await self.computed(count * ends[0].size, gaussian.interpolate, ends, steps, method)
            path = finite_latents(path, points.pointer, rows=False)
            return await vae.decode_latents(path, percentile=percentile), method

    async def combine(self, points: Points, weights: Doubles, *, percentile: bool = False) -> Decoded:
        """Decode the sum of points with weights `[P]`: z = sum of weight_i * z_i.

        Raises:
            InvalidInput: the sum is not finite; or as `decode_latents`.
        """
        with self._reserved("decoder", 1) as vae:
            self.check_pixels(1, self.geometry.image_of(points.latents.shape[1:]))
            latents = await vae._located(points)
            with np.errstate(over="ignore", invalid="ignore"):
                total = np.tensordot(weights, latents.astype(np.float64), axes=1)
            summed = finite_latents(total[None], points.pointer, rows=False)
            return await vae.decode_latents(summed, percentile=percentile)

    async def _located(self, points: Points) -> Floats:
        """Latents `[P, *latent]` of points; the images among them are encoded in one batch."""
        if points.images is None:
            return points.latents
        latents = points.latents.copy()
        latents[points.image_rows] = (await self.encode(points.images)).mean
        return latents

    def traverse(self, base: Floats, dims: list[int], values: Floats) -> Floats:
        """Latents `[len(dims) * len(values), d]`: `base` `[d]` with one of `dims` at a time set to each of `values`."""
        latents = np.tile(base, (len(dims), len(values), 1))
        for row, dim in enumerate(dims):
            latents[row, :, dim] = values
        return latents.reshape(-1, base.size)

    async def vary(self, images: Pixels, n: int, radius: float, seed: int, *, percentile: bool = False) -> Decoded:
        """Decode `n` draws around the posterior of one image `[1, H, W, C]`: z = mean + radius * exp(log_std) * eps,
        eps ~ N(0, I).

        Raises:
            InvalidInput: this model's encoder is deterministic; the images would have too many pixels; or as
                `decode_latents`.
        """
        with self._reserved("decoder", n, images.shape[1:3]) as vae:
            self.check_pixels(n, images.shape[1:3], "/query/n")
            posterior = await vae.encode(images)
            std, shape = np.exp(self._log_std(posterior, "/query/model")), posterior.mean.shape[1:]
            eps = await self.computed(n * posterior.mean.size, gaussian.standard_normal, seed, n, shape)
            latents = np.asarray(posterior.mean + np.float32(radius) * std * eps, np.float32)
            return await vae.decode_latents(latents, percentile=percentile)

    def latent_percentile(self, latents: Floats) -> Doubles:
        """Percentage of prior draws that are nearer to the origin than each of `latents` `[N, *latent]`.

        Raises:
            InvalidInput: this bundle has no quantiles of prior draws.
        """
        return _norms(self.tables.prior_norms).percentile(squared_norm(latents))

    def mean_percentile(self, means: Floats) -> Doubles:
        """Percentage of held-out images whose posterior mean is nearer to the origin than each of `means`.

        Raises:
            InvalidInput: this bundle has no quantiles of posterior means.
        """
        return _norms(self.tables.mean_norms).percentile(squared_norm(means))

    def plane(self, grid: Floats, dims: tuple[int, int]) -> Floats:
        """Latents `[N, d]`: zero, except for `grid` `[N, 2]` in the dimensions `dims`."""
        latents = np.zeros((len(grid), *self.geometry.latent_shape), np.float32)
        latents[:, list(dims)] = grid
        return latents

    def main_dims(self) -> tuple[int, int]:
        """The indices of the two dimensions of highest KL, ascending.

        Raises:
            InvalidInput: the latent is not a vector of two or more dimensions.
        """
        if not self.geometry.is_vector or self.geometry.latent_shape[0] < 2:
            raise InvalidInput("this model's latent space has no plane: it is not a vector of two or more dimensions")
        first, second = sorted(self.dims_by_kl()[:2])
        return first, second

    def dims_by_kl(self) -> list[int]:
        """The latent dimensions by KL, the highest first; in ascending order if the manifest has no KL."""
        kl = np.array(self.manifest.metrics.get("kl_per_dimension") or np.zeros(self.geometry.latent_shape))
        return [int(dim) for dim in np.argsort(-kl, kind="stable")]


def _norms(quantiles: Quantiles | None) -> Quantiles:
    if quantiles is None:
        raise InvalidInput("this model has no quantiles to compute percentiles from", "/query/percentile")
    return quantiles
