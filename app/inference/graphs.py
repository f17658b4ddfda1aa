"""The two graphs of one bundle, ready to run: rows in, arrays out, through the batcher."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.bundle.geometry import Geometry
from app.bundle.manifest import Bundle, Graph, Manifest, Tensor
from app.errors import InferenceFailed
from app.inference import tiling
from app.inference.batcher import Arrays, Batcher, Latency, Run, Work
from app.inference.session import ExecutionProvider, Session, check_finite
from app.inference.warmup import Lane as Lane
from app.inference.warmup import check_graphs, measure, trial_sizes
from app.maths.gaussian import Floats, Posterior
from app.maths.likelihood import PARAMETERS, log_prob
from app.observability import timing

GraphName = Literal["encoder", "decoder"]

CHUNK = 1024
"""Rows that one request has in the queue at a time where each of its images makes many,"""
BYTES_A_ROW = 65_536
"""each of so many bytes of pixels: a row of more counts as several, so that rows bound memory."""

WIDEST = np.float32(30)
"""Largest `log_std`, a standard deviation of 1e13: of an image unlike any that it learnt from an encoder may say far
more, and neither draws nor their scores would be finite."""


class Graphs:
    """Encoder and decoder, and the likelihood behind the decoder. Rows of the three wait in lanes of their own."""

    def __init__(
        self,
        bundle: Bundle,
        batcher: Batcher,
        *,
        execution_provider: ExecutionProvider,
        threads: int,
        queue_seconds: float,
        tile_side: int,
    ) -> None:
        """Load both graphs and run each once. Where images may be of any size, those with a longer side than
        `tile_side` pixels, and the latents of such, go through in tiles.

        Raises:
            BundleError: ONNX Runtime cannot load a graph, or it does not give what the manifest says.
            ExecutionProviderError: the graph fell back to another provider.
        """
        self.manifest: Manifest = bundle.manifest
        self.geometry = Geometry.of(bundle.manifest)
        directory = f"{bundle.manifest.name}/{bundle.manifest.version}"
        load = partial(
            Session,
            execution_provider=execution_provider,
            threads=threads,
            any_size=self.geometry.size is None,
        )
        files, models = bundle.manifest.graphs_of(execution_provider), bundle.graphs_of(execution_provider)
        self._is_reduced = execution_provider in bundle.reduced
        self._encoder, self._decoder = (
            load(model, name=f"{directory}/{file.file}") for file, model in zip(files, models, strict=True)
        )
        self._batcher, self._queue_seconds, self._tile_side = batcher, queue_seconds, tile_side
        self.statistics: dict[GraphName, timing.Statistics] = {
            graph: timing.Statistics(graph=(bundle.manifest.name, graph)) for graph in ("encoder", "decoder")
        }
        """Of everything that ran through each graph."""
        self.latency = self._warm_up()
        """Of each, for rows of the model's size or, where any will do, of the first that was tried."""

    def tensors(self, graph: GraphName) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs and outputs of a graph; of the latter those that the manifest tells of and the graph has."""
        session, told = self._session(graph)
        return told.inputs, {name: tensor for name, tensor in told.outputs.items() if name in session.outputs}

    async def run(
        self,
        work: Work,
        graph: GraphName,
        rows: NDArray[Any],
        *,
        with_parameters: bool = False,
        seconds: float | None = None,
    ) -> Arrays:
        """The outputs `[N, ...]` of a graph for rows as it takes them: uint8 `[N, C, H, W]` or float32 `[N, *latent]`.

        They are the encoder's `mean` and `log_std`, the decoder's `image` and, `with_parameters`, everything else that
        it gives. `seconds` is how long they may wait for a slot, if that is less than the setting.
        """
        lane: Lane = "parameters" if with_parameters and graph == "decoder" else graph
        if self.geometry.size is None:
            scale = 1 if graph == "encoder" else self.geometry.stride
            size = rows.shape[2] * scale, rows.shape[3] * scale
            if (plan := self._plan(*size, elements=self.geometry.stride // scale)) is not None:
                most = self.most(*self._tile(plan))
                with self.reserve(work, lane, len(rows), size) as held:
                    return await tiling.tiled(rows, plan, most, lambda tiles: self._submit(held, lane, tiles, seconds))
        return await self._submit(work, lane, rows, seconds)

    def _plan(self, height: int, width: int, elements: int) -> tiling.Plan | None:
        """The tiles of images of so many pixels, or of their latents, of as many `elements` a cell; None where they go
        through as they are."""
        stride = self.geometry.stride
        if self.geometry.size is not None or max(height, width) <= max(self._tile_side, tiling.LEAST * stride):
            return None
        down, across, longest = (side * elements // stride for side in (height, width, self._tile_side))
        return tiling.Plan.of(down, across, elements, longest)

    def _tile(self, plan: tiling.Plan) -> tuple[int, int]:
        """Height and width of the tiles' images."""
        return plan.down.tile * self.geometry.stride, plan.across.tile * self.geometry.stride

    async def encode(self, work: Work, rows: NDArray[np.uint8]) -> Posterior:
        """q(z|x) of images `[N, C, H, W]`."""
        outputs = await self.run(work, "encoder", rows)
        log_std = outputs.get("log_std")
        return Posterior(outputs["mean"], None if log_std is None else np.minimum(log_std, WIDEST))

    async def score(self, work: Work, rows: Floats, *, explain: bool) -> Arrays:
        """`log_p_x` `[N]` of rows `[N, d + pixels]`: a latent, and the pixels in [0, 1] that it is to explain; with
        `explain`, the `log_p_pixels` `[N, pixels]` that it is the sum of, too."""
        return await self._submit(work, "explain" if explain else "score", rows)

    def most(self, height: int, width: int) -> int:
        """How many rows of images of this size one request should have in the queue at a time: some MB of them, and no
        more than it holds."""
        return max(1, min(CHUNK, self._batcher.queue_rows) // self._cost(height * width))

    def _cost(self, pixels: int) -> int:
        """As how many rows a row counts whose image has so many pixels."""
        return -(-pixels * self.geometry.channels // BYTES_A_ROW)

    def check_admission(self, lane: Lane, rows: int) -> None:
        """Refuse a request that runs so many rows where the queue has no room for them now, or for as many of them as
        are in it at a time.

        Raises:
            InvalidInput: there never is.
            Overloaded: there is none.
        """
        self._batcher.check_room(self._key(lane), min(rows, self._fixed_most), self._fixed_cost or 1)

    @contextmanager
    def reserve(self, work: Work, lane: Lane, rows: int, size: tuple[int, ...] | None = None) -> Iterator[Work]:
        """Reserve room in the queue for `rows` of a lane; what is run for the work that it yields is admitted.

        `size` is height and width of the images, if the model has no size of its own; of images that go through in
        tiles, room is reserved for as many tiles as are in the queue at a time. Work that has a reservation already,
        or whose images are of an unknown size, is yielded as it is.

        Raises:
            InvalidInput: the queue never has room for them.
            Overloaded: it has none now.
        """
        height, width = self.geometry.size or size or (0, 0)
        if not height or work.reservation is not None:
            yield work
            return
        if (plan := self._plan(height, width, elements=1)) is not None:
            height, width = self._tile(plan)
            rows = min(len(plan.across.starts), self.most(height, width))
        with self._batcher.hold(self._key(lane), rows, *self._weight(lane, height * width)) as reservation:
            yield Work(work.timing, reservation)

    @property
    def can_score(self) -> bool:
        """Whether there is a likelihood of images."""
        return "score" in self.latency

    @property
    def queued_rows(self) -> int:
        """Rows that wait for these graphs."""
        return self._batcher.queued_rows_of(self)

    def _key(self, lane: Lane) -> tuple["Graphs", Lane]:
        return self, lane

    def _weight(self, lane: Lane, pixels: int) -> tuple[Latency | None, int]:
        """The latency of rows whose images have so many pixels, and as how many each of them counts."""
        latency = self.latency[lane]
        if self._fixed_cost is not None:
            return latency, self._fixed_cost
        return latency and latency.scaled(pixels / self._tried_pixels), self._cost(pixels)

    async def _submit(self, work: Work, lane: Lane, rows: NDArray[Any], seconds: float | None = None) -> Arrays:
        patience = self._queue_seconds if seconds is None else min(seconds, self._queue_seconds)
        latency, cost = self.latency[lane], self._fixed_cost
        if cost is None:
            pixels = rows[0, 0].size * (1 if lane == "encoder" else self.geometry.stride**2)
            latency, cost = self._weight(lane, pixels)
        return await self._batcher.submit(
            self._key(lane),
            self._run(lane),
            rows,
            latency=latency,
            cost=cost,
            deadline=time.monotonic() + patience,
            timing=work.timing,
            statistics=self.statistics["encoder" if lane == "encoder" else "decoder"],
            place=work.reservation,
        )

    def _run(self, lane: Lane) -> Run:
        """What runs rows of a lane; not kept, because it holds this object."""
        run: Run = getattr(self, f"_run_{lane}")
        return run

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

    def _run_score(self, rows: Floats) -> Arrays:
        """log p(x|z) `[N]` of rows `[N, d + pixels]`: a latent, and the pixels in [0, 1] that it is to explain."""
        parameters, pixels = self._parameters(rows)
        return self._finite({"log_p_x": log_prob(self.manifest.likelihood, parameters, pixels)})

    def _run_explain(self, rows: Floats) -> Arrays:
        """The same, and the log p(x_i|z) `[N, pixels]` that it is the sum of."""
        parameters, pixels = self._parameters(rows)
        each = {name: values[..., None] for name, values in parameters.items()}
        terms = log_prob(self.manifest.likelihood, each, pixels[..., None]).astype(np.float32)
        return self._finite({"log_p_x": terms.sum(axis=1, dtype=np.float64), "log_p_pixels": terms})

    def _finite(self, scores: Arrays) -> Arrays:
        """Raises InferenceFailed where the decoder's parameters, finite as they are, give scores that are not."""
        try:
            check_finite(scores)
        except FloatingPointError as error:
            raise InferenceFailed(f"{self._decoder.name} failed") from error
        return scores

    def _parameters(self, rows: Floats) -> tuple[dict[str, Floats], Floats]:
        """The likelihood's parameters and the pixels, `[N, pixels]` each, of rows as `_run_score` takes them."""
        shape, names = self.geometry.latent_shape, PARAMETERS[self.manifest.likelihood]
        latents, pixels = np.split(rows, [math.prod(shape)], axis=1)
        parameters = self._decoder.run({"latent": latents.reshape(-1, *shape)}, names)
        return {name: values.reshape(len(rows), -1) for name, values in parameters.items()}, pixels

    def _warm_up(self) -> dict[Lane, Latency | None]:
        """Try the graphs, and fit their latencies. One with a loop has none: zeros tell nothing of other rows, and it
        is never run where the server would wait for it."""
        geometry = self.geometry
        check_graphs(self.manifest, geometry, self._encoder, self._decoder, reduced=self._is_reduced)
        height, width = trial_sizes(geometry)[0]
        self._tried_pixels = height * width
        self._fixed_cost = None if geometry.size is None else self._cost(height * width)
        self._fixed_most = self.most(*geometry.size) if geometry.size is not None else 1
        image = np.zeros((1, geometry.channels, height, width), np.uint8)
        latent = np.zeros((1, *geometry.latent_of(height, width)), np.float32)
        has_parameters = set(PARAMETERS[self.manifest.likelihood]) <= set(self._decoder.outputs)
        scores = self.manifest.stochastic and has_parameters and geometry.size is not None
        latency = measure(self._run, image, latent, self._decoder.name, scores=scores)
        return {lane: None if self._session_of(lane).has_loop else known for lane, known in latency.items()}

    def _session_of(self, lane: Lane) -> Session:
        return self._encoder if lane == "encoder" else self._decoder


def planes(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`[N, C, H, W]`, as the graphs have them, of `[N, H, W, C]`."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
