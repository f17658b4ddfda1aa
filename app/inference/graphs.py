"""The two graphs of one bundle, ready to run: rows in, arrays out, through the batcher."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.bundle.files import Bundle
from app.bundle.manifest import Tensor
from app.inference import tiling
from app.inference.batcher import Batcher, Work
from app.inference.lanes import GraphName as GraphName
from app.inference.lanes import Lane as Lane
from app.inference.lanes import Sessions
from app.inference.queue import LaneSpec
from app.inference.session import ExecutionProvider
from app.inference.warmup import check_graphs, measure, trial_sizes
from app.maths.arrays import Arrays, Pixels
from app.maths.gaussian import Posterior
from app.observability.timing import GraphStatistics

MAX_QUEUED_ROWS = 1024
"""Maximum rows that one request has in the queue at a time, if each of its images makes many rows."""
BYTES_PER_ROW = 65_536
"""Bytes of pixels that count as one row in the queue, so that rows bound memory: a larger image counts as several."""
MAX_LOG_STD = np.float32(30)
"""Maximum `log_std`, a standard deviation of 1e13. For images unlike its training data an encoder may return far more,
and neither draws nor their scores would be finite."""


@dataclass(frozen=True)
class ServingOptions:
    """How models are served, from the server's settings."""

    execution_provider: ExecutionProvider = "cpu"
    threads: int = 1
    """Threads that ONNX Runtime uses for one batch."""
    queue_seconds: float = 30
    """Maximum wait of rows for a slot, in seconds."""
    tile_side: int = 512
    """Maximum side, in pixels, of an image that is not cut into tiles, if the model takes any size."""
    whole_bytes: int = 2**30
    """Maximum bytes of a larger image that is not cut into tiles either, because they would change it."""
    max_pixels: int = 2**24
    """Maximum pixels of all images together that one request makes."""
    load_seconds: float = 120
    """Maximum duration of loading one bundle, in seconds."""


class Graphs:
    """Encoder and decoder of one bundle. Each lane has its own turns in the batcher."""

    def __init__(self, bundle: Bundle, batcher: Batcher, options: ServingOptions) -> None:
        """Load both graphs, run each once and time them.

        Raises:
            BundleError: ONNX Runtime cannot load a graph, or its outputs are not what the manifest says.
            ExecutionProviderError: a graph fell back to another provider.
        """
        self._batcher, self._options = batcher, options
        self.sessions = Sessions(bundle, options.execution_provider, options.threads)
        self.manifest, self.geometry = self.sessions.manifest, self.sessions.geometry
        check_graphs(self.sessions, is_reduced=options.execution_provider in bundle.reduced)
        latencies = measure(self.sessions)
        self.statistics: dict[GraphName, GraphStatistics] = {
            graph: GraphStatistics(graph=(bundle.manifest.name, graph)) for graph in ("encoder", "decoder")
        }
        """The outcome of all requests to each graph."""
        height, width = trial_sizes(self.geometry)[0]
        self._trial_pixels = height * width
        self._owner = object()  # not `self`: the lanes would hold their graphs, and an unloaded model stay in memory
        self.lanes: dict[Lane, LaneSpec] = {
            lane: batcher.lane(
                (self._owner, lane),
                run,
                latency=latencies.get(lane),
                cost=1 if self.geometry.size is None else self._cost(self._trial_pixels),
                statistics=self.statistics["encoder" if lane == "encoder" else "decoder"],
            )
            for lane, run in self.sessions.lanes().items()
        }
        """The lanes, for rows of the model's size; see `_lane` for models of any size."""

    def tensors(self, graph: GraphName) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs of a graph, and the outputs that both the manifest and the graph have."""
        sessions, graphs = self.sessions, self.manifest.graphs
        session, described = (
            (sessions.encoder, graphs.encoder) if graph == "encoder" else (sessions.decoder, graphs.decoder)
        )
        return described.inputs, {name: it for name, it in described.outputs.items() if name in session.outputs}

    @property
    def queued_rows(self) -> int:
        """Rows that wait for these graphs."""
        return self._batcher.queue.rows_of(self._owner)

    def max_queued_rows(self, height: int, width: int) -> int:
        """Rows of images of this size that one request has in the queue at a time: a few MB, and no more than the
        queue holds."""
        return max(1, min(MAX_QUEUED_ROWS, self._batcher.queue_rows) // self._cost(height * width))

    def check_admission(self, work: Work, lane: Lane, rows: int) -> None:
        """Raise if the queue has no room now for `rows`, or for as many as one request has in the queue at a time.

        If images may be of any size, the check is for one row.

        Raises:
            InvalidInput: there never is room for that many rows.
            Overloaded: there is no room now, or the rows would wait too long.
        """
        max_rows = 1 if self.geometry.size is None else self.max_queued_rows(*self.geometry.size)
        self._batcher.admission.check(self.lanes[lane], min(rows, max_rows), work.timing.caller)

    @contextmanager
    def reserve(self, work: Work, lane: Lane, rows: int, size: tuple[int, ...] | None = None) -> Iterator[Work]:
        """Reserve room in the queue for `rows` of a lane; rows run for the yielded work are admitted.

        `size` is height and width of the images, if the model has no fixed size. If the images are tiled, room is
        reserved for the tiles that are in the queue at a time. Work that has a reservation already, or whose images are
        of an unknown size, is yielded unchanged.

        Raises:
            InvalidInput: the queue never has room for that many rows.
            Overloaded: it has no room now.
        """
        height, width = self.geometry.size or size or (0, 0)
        if not height or work.reservation is not None:
            yield work
            return
        if (plan := self._tile_plan(height, width, elements=1)) is not None:
            height, width = self._tile_size(plan)
            rows = min(len(plan.across.starts), self.max_queued_rows(height, width))
        spec, caller = self._lane(lane, height * width), work.timing.caller
        with self._batcher.admission.reserve(spec, rows, caller) as reservation:
            yield Work(work.timing, reservation)

    async def encode(self, work: Work, rows: Pixels) -> Posterior:
        """q(z|x) of images `[N, C, H, W]`."""
        outputs = await self.run(work, "encoder", rows)
        log_std = outputs.get("log_std")
        return Posterior(outputs["mean"], None if log_std is None else np.minimum(log_std, MAX_LOG_STD))

    async def run(self, work: Work, lane: Lane, rows: NDArray[Any], seconds: float | None = None) -> Arrays:
        """The outputs `[N, ...]` of a lane for its input rows; see `Sessions`.

        `seconds` is the maximum wait for a slot, if it is less than the setting.
        """
        if self.geometry.size is None:
            scale = 1 if lane == "encoder" else self.geometry.stride
            size = rows.shape[2] * scale, rows.shape[3] * scale
            if (plan := self._tile_plan(*size, elements=self.geometry.stride // scale)) is not None:
                max_tiles = self.max_queued_rows(*self._tile_size(plan))
                with self.reserve(work, lane, len(rows), size) as reserved:
                    return await tiling.tiled(
                        rows, plan, max_tiles, lambda tiles: self._submit(reserved, lane, tiles, seconds)
                    )
        return await self._submit(work, lane, rows, seconds)

    def _tile_plan(self, height: int, width: int, elements: int) -> tiling.Plan | None:
        """The tiles of images of `height` x `width` pixels, or of their latents, with `elements` per side of a cell;
        None if they are not tiled."""
        stride = self.geometry.stride
        if self.geometry.size is not None or not self._exceeds_tile(height, width) or self._is_whole(height * width):
            return None
        down, across, max_side = (side * elements // stride for side in (height, width, self._options.tile_side))
        return tiling.Plan.of(down, across, elements, max_side, self.manifest.latent.margin)

    def _exceeds_tile(self, height: int, width: int) -> bool:
        return max(height, width) > max(self._options.tile_side, tiling.MIN_CELLS * self.geometry.stride)

    def _is_whole(self, pixels: int) -> bool:
        """Whether tiles would change an image by more than a level, and its memory in one piece is within the bound."""
        tiles = self.manifest.latent.tiles
        return (
            tiles is not None
            and tiles.levels > tiling.MAX_LEVELS
            and tiles.bytes_in_one_piece(pixels) <= self._options.whole_bytes
        )

    def _tile_size(self, plan: tiling.Plan) -> tuple[int, int]:
        """Height and width of the tiles' images, in pixels."""
        return plan.down.tile * self.geometry.stride, plan.across.tile * self.geometry.stride

    def _cost(self, pixels: int) -> int:
        """Rows in the queue that a row counts as if its image has `pixels`."""
        return -(-pixels * self.geometry.channels // BYTES_PER_ROW)

    def _lane(self, lane: Lane, pixels: int) -> LaneSpec:
        """The description of a lane for rows whose images have `pixels`."""
        spec = self.lanes[lane]
        if self.geometry.size is not None:
            return spec
        latency = spec.latency and spec.latency.scaled(pixels / self._trial_pixels)
        scaled = self._batcher.lane(
            spec.key, spec.run, latency=latency, cost=self._cost(pixels), statistics=spec.statistics
        )
        # Images larger than tiles run alone: the bound of their memory is that of one.
        return replace(scaled, max_batch_rows=1) if pixels > self._options.tile_side**2 else scaled

    async def _submit(self, work: Work, lane: Lane, rows: NDArray[Any], seconds: float | None = None) -> Arrays:
        spec, max_seconds = self.lanes[lane], self._options.queue_seconds
        if self.geometry.size is None:
            pixels = rows[0, 0].size * (1 if lane == "encoder" else self.geometry.stride**2)
            spec = self._lane(lane, pixels)
        wait = max_seconds if seconds is None else min(seconds, max_seconds)
        return await self._batcher.submit(spec, rows, work, deadline=time.monotonic() + wait)


def planes(images: Pixels) -> Pixels:
    """`[N, C, H, W]`, as the graphs have them, of `[N, H, W, C]`."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
