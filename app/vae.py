"""One served model: what a VAE can do. Images are uint8 `[N, H, W, C]`, latents float32 `[N, *latent]`."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from app import gaussian, timing
from app.batcher import Arrays, Batcher, Latency, Run
from app.bundle import MANIFEST, Bundle, Graph, Manifest, Tensor
from app.errors import BundleError, InferenceFailed, InvalidInput
from app.gaussian import Floats, Mixture, Posterior
from app.likelihood import PARAMETERS, binarize, log_prob, threshold
from app.score import Binarize, Calibration, Scores, score
from app.session import ExecutionProvider, Session

Pixels = NDArray[np.uint8]
Source = Literal["prior", "aggregate"]
Method = Literal["auto", "lerp", "slerp"]
Mode = Literal["mean", "draw", "predictive"]
GraphName = Literal["encoder", "decoder"]
Result = TypeVar("Result")

PREDICTIVE_DRAWS = 32
"""Decoded draws that the posterior predictive averages."""
INLINE_ELEMENTS = 16_384
"""Draws that take the event loop less time than it would lose by a thread: some tenths of a millisecond."""
CHUNK = 1024
"""Rows that one request has in the queue at a time where each of its images makes many: some MB of them."""


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
        """Load both graphs and run each once.

        Raises:
            BundleError: ONNX Runtime cannot load a graph, or it does not give what the manifest says.
            ExecutionProviderError: the graph fell back to another provider.
        """
        self.manifest: Manifest = bundle.manifest
        self.execution_provider = execution_provider
        directory, graphs = f"{bundle.manifest.name}/{bundle.manifest.version}", bundle.manifest.graphs
        _check_shapes(bundle, directory)
        load = partial(Session, execution_provider=execution_provider, threads=threads)
        self._encoder = load(bundle.encoder, name=f"{directory}/{graphs.encoder.file}")
        self._decoder = load(bundle.decoder, name=f"{directory}/{graphs.decoder.file}")
        self._batcher, self._queue_seconds = batcher, queue_seconds
        self.digest = self.manifest.digest
        self._label_means: Floats | None = bundle.arrays.get("label_means")
        self._mixture = Mixture.of(bundle.arrays)
        self._calibration = Calibration.of(bundle.arrays)
        self.statistics: dict[GraphName, timing.Statistics] = {
            "encoder": timing.Statistics(),
            "decoder": timing.Statistics(),
        }
        """Of everything that ran through each graph."""
        self.latency = self._warm_up()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        image = self.manifest.image
        assert image.height is not None
        assert image.width is not None
        return image.height, image.width, image.channels

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one latent."""
        return tuple(size for size in self.manifest.latent.shape if size is not None)

    async def encode(self, images: Pixels) -> Posterior:
        """q(z|x) of images `[N, H, W, C]`."""
        return await self._encode(_planes(images))

    async def _encode(self, rows: Pixels) -> Posterior:
        outputs = await self._submit("encoder", self._run_encoder, rows)
        return Posterior(outputs["mean"], outputs.get("log_std"))

    async def decode(self, latents: Floats) -> Pixels:
        """Images `[N, H, W, C]`, the decoder's mean, of latents `[N, *latent]`."""
        outputs = await self._submit("decoder", self._run_decoder, latents)
        return np.ascontiguousarray(outputs["image"].transpose(0, 2, 3, 1))

    def tensors(self, graph: GraphName) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs and outputs of a graph; of the latter those that the manifest tells of and the graph has."""
        session, told = self._session(graph)
        return told.inputs, {name: tensor for name, tensor in told.outputs.items() if name in session.outputs}

    async def run(
        self, graph: GraphName, rows: NDArray[Any], *, with_parameters: bool = False, seconds: float | None = None
    ) -> Arrays:
        """The outputs `[N, ...]` of a graph for rows as it takes them: uint8 `[N, C, H, W]` or float32 `[N, *latent]`.

        They are the encoder's `mean` and `log_std`, the decoder's `image` and, `with_parameters`, everything else that
        it gives. `seconds` is how long they may wait for a slot, if that is less than the setting.
        """
        if graph == "encoder":
            return await self._submit("encoder", self._run_encoder, rows, seconds)
        if not with_parameters:
            return await self._submit("decoder", self._run_decoder, rows, seconds)
        return await self._submit("parameters", self._run_parameters, rows, seconds)

    def draw(self, posterior: Posterior, seed: int, pointer: str = "/query/draw") -> Floats:
        """One draw from the posterior a row; `pointer` is what asked for it.

        Raises:
            InvalidInput: this model's encoder is deterministic.
        """
        if posterior.log_std is None:
            raise InvalidInput("this model's encoder is deterministic: there is no posterior to draw from", pointer)
        return posterior.draw(seed)

    async def reconstruct(self, images: Pixels, mode: Mode, seed: int) -> Pixels:
        """Images `[N, H, W, C]` encoded and decoded: by the posterior's mean, by one draw, or the posterior predictive,
        which is the average of what 32 draws decode to.

        Raises:
            InvalidInput: draws are asked for, and this model's encoder is deterministic.
        """
        posterior = await self.encode(images)
        if mode == "mean":
            return await self.decode(posterior.mean)
        if mode == "draw" or posterior.log_std is None:  # which `draw` refuses
            return await self.decode(self.draw(posterior, seed, "/query/mode"))
        averages, size = [], CHUNK // PREDICTIVE_DRAWS
        for first in range(0, len(images), size):
            rows = range(first, min(first + size, len(images)))
            _, drawn = posterior.draws(seed, rows, PREDICTIVE_DRAWS)
            decoded = await self.decode(drawn.reshape(-1, *self.latent_shape))
            averages.append(decoded.reshape(len(rows), PREDICTIVE_DRAWS, *self.image_shape).mean(axis=1))
        return np.round(np.concatenate(averages)).astype(np.uint8)

    async def score(self, images: Pixels, *, k: int, seed: int, how: Binarize | None) -> tuple[Scores, Binarize]:
        """How well the model explains images `[N, H, W, C]`, from `k` draws each, and how they were binarized.

        Raises:
            InvalidInput: this model has no likelihood of images, or none of images made binary as `how` says.
        """
        how = self._how_to_binarize(how)
        rows = _planes(images)
        if how == "draw":
            rows = binarize(rows, seed)
        elif how == "threshold":
            rows = threshold(rows)
        elif self.manifest.likelihood == "bernoulli":
            _check_binary(rows)
        posterior = await self._encode(rows)
        elements = posterior.mean.size * k
        eps, latents = await _computed(elements, posterior.draws, seed, range(len(rows)), k)
        flat, pixels = latents.reshape(len(rows) * k, -1), rows.reshape(len(rows), -1)
        pieces = []
        for first in range(0, len(flat), CHUNK):
            drawn = flat[first : first + CHUNK]
            explained = pixels[np.arange(first, first + len(drawn)) // k].astype(np.float32) / np.float32(255)
            outputs = await self._submit("score", self._run_scoring, np.concatenate([drawn, explained], axis=1))
            pieces.append(outputs["log_p_x"])
        calibration = self._calibration if how == self._how_to_binarize(None) else None
        log_p_x = np.concatenate(pieces).reshape(len(rows), k)
        return await _computed(elements, score, log_p_x, posterior, eps, latents, calibration), how

    def _how_to_binarize(self, how: Binarize | None) -> Binarize:
        """How images are made what the likelihood is of: as in training, if None."""
        manifest = self.manifest
        if "score" not in self.latency:
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
        if self._mixture is None:
            raise InvalidInput("this model has no aggregated posterior", "/query/source")
        if label is not None and label not in self._mixture.labels:
            raise InvalidInput("this model's aggregated posterior has no such label", "/query/label")
        return self._mixture.sample(seed, n, temperature=temperature, truncation=truncation, label=label)

    def label_mean(self, label: int) -> Floats:
        """Mean `[*latent]` of the training images' posterior means of one class.

        Raises:
            InvalidInput: this bundle has no class means, or no such class.
        """
        if self._label_means is None:
            raise InvalidInput("this model has no labels")
        if label >= len(self._label_means):
            raise InvalidInput(f"this model's labels are 0 to {len(self._label_means) - 1}")
        mean: Floats = self._label_means[label]
        return mean

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
        kl = np.array(self.manifest.metrics.get("kl_per_dimension") or np.zeros(self.latent_shape))
        first, second = sorted(int(i) for i in np.argsort(-kl, kind="stable")[:2])
        return first, second

    @property
    def queued_rows(self) -> int:
        """Rows that wait for this model."""
        return self._batcher.queued_rows_of(self)

    async def _submit(self, what: str, run: Run, rows: NDArray[Any], seconds: float | None = None) -> Arrays:
        patience = self._queue_seconds if seconds is None else min(seconds, self._queue_seconds)
        return await self._batcher.submit(
            (self, what, rows.shape[1:]),
            run,
            rows,
            latency=self.latency[what],
            deadline=time.monotonic() + patience,
            timing=timing.current(),
            statistics=self.statistics["encoder" if what == "encoder" else "decoder"],
        )

    def _session(self, graph: GraphName) -> tuple[Session, Graph]:
        graphs = self.manifest.graphs
        return (self._encoder, graphs.encoder) if graph == "encoder" else (self._decoder, graphs.decoder)

    def _run_encoder(self, rows: NDArray[np.uint8]) -> Arrays:
        return self._encoder.run({"image": rows})

    def _run_decoder(self, rows: Floats) -> Arrays:
        # Without the likelihood's parameters: only scoring needs them.
        return self._decoder.run({"latent": rows}, ["image"])

    def _run_parameters(self, rows: Floats) -> Arrays:
        return self._decoder.run({"latent": rows})

    def _run_scoring(self, rows: Floats) -> Arrays:
        """log p(x|z) `[N]` of rows `[N, d + pixels]`: a latent, and the pixels in [0, 1] that it is to explain."""
        latents, pixels = np.split(rows, [self.latent_shape[0]], axis=1)
        names = PARAMETERS[self.manifest.likelihood]
        parameters = self._decoder.run({"latent": np.ascontiguousarray(latents)}, names)
        flat = {name: values.reshape(len(rows), -1) for name, values in parameters.items()}
        return {"log_p_x": log_prob(self.manifest.likelihood, flat, pixels)}

    def _warm_up(self) -> dict[str, Latency]:
        """Run each graph on zeros, compare what it gives with what the manifest says, and fit its latency."""
        height, width, channels = self.image_shape
        image, latent = np.zeros((1, channels, height, width), np.uint8), np.zeros((1, *self.latent_shape), np.float32)
        graphs = self.manifest.graphs
        runs = (
            (self._encoder, {"image": image}, dict.fromkeys(graphs.encoder.outputs, latent)),
            (self._decoder, {"latent": latent}, {"image": image}),
        )
        for session, inputs, expected in runs:
            try:
                outputs = session.run(inputs, list(expected))
            except InferenceFailed as error:
                raise BundleError(
                    f"{session.name} does not run as its manifest says: {str(error.__cause__).splitlines()[0]}"
                ) from error
            for name, like in expected.items():
                if (outputs[name].shape, outputs[name].dtype) != (like.shape, like.dtype):
                    raise BundleError(f"{session.name} gives another `{name}` than its manifest says")
        latency = {
            "encoder": Latency.measured(self._run_encoder, image),
            "decoder": Latency.measured(self._run_decoder, latent),
            "parameters": Latency.measured(self._run_parameters, latent),
        }
        if self.manifest.stochastic and set(PARAMETERS[self.manifest.likelihood]) <= set(self._decoder.outputs):
            explained = np.zeros((1, latent.size + image.size), np.float32)
            try:
                latency["score"] = Latency.measured(self._run_scoring, explained)
            except (ValueError, InferenceFailed) as error:
                raise BundleError(f"{self._decoder.name} does not score images of its manifest's likelihood") from error
        return latency


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


def _check_shapes(bundle: Bundle, directory: str) -> None:
    """Refuse what is not served (images of any size, latents that are no vectors) and arrays that do not fit."""
    image, latent, path = bundle.manifest.image, bundle.manifest.latent.shape, f"{directory}/{MANIFEST}"
    if image.height is None or image.width is None or len(latent) != 1 or latent[0] is None:
        raise BundleError(f"{path} is of images without a fixed size or latents that are no vectors: not served yet")
    d, kl = latent[0], bundle.manifest.metrics.get("kl_per_dimension")
    if kl is not None and not (isinstance(kl, list) and len(kl) == d and all(isinstance(v, float | int) for v in kl)):
        raise BundleError(f"{path} has a kl_per_dimension that is not {d} numbers")
    components, levels, ks = (
        len(bundle.arrays.get(name, ())) for name in ("aggregate_weights", "percentiles", "score_k")
    )
    wanted = {
        "label_means": (len(bundle.arrays.get("label_means", ())), d),
        "aggregate_means": (components, d),
        "aggregate_cholesky": (components, d, d),
        "aggregate_labels": (components,),
        "percentiles": (levels,),
        "score_k": (ks,),
        "score_quantiles": (ks, levels),
    }
    for name, shape in wanted.items():
        if name in bundle.arrays and bundle.arrays[name].shape != shape:
            raise BundleError(f"{directory}/{bundle.manifest.arrays[name].file} does not have the shape {shape}")
