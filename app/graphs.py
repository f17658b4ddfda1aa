"""The two graphs of one bundle, ready to run: rows in, arrays out, through the batcher."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app import timing
from app.batcher import Arrays, Batcher, Latency, Place, Run
from app.bundle import MANIFEST, Bundle, Graph, Manifest, Tensor
from app.errors import BundleError, InferenceFailed
from app.gaussian import Floats
from app.likelihood import PARAMETERS, log_prob
from app.session import ExecutionProvider, Session, check_finite

GraphName = Literal["encoder", "decoder"]
Lane = Literal["encoder", "decoder", "parameters", "score", "explain"]
"""What rows are run for; each has a lane of its own."""

_place: ContextVar[Place | None] = ContextVar("place", default=None)


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
    ) -> None:
        """Load both graphs and run each once.

        Raises:
            BundleError: ONNX Runtime cannot load a graph, or it does not give what the manifest says.
            ExecutionProviderError: the graph fell back to another provider.
        """
        self.manifest: Manifest = bundle.manifest
        directory, graphs = f"{bundle.manifest.name}/{bundle.manifest.version}", bundle.manifest.graphs
        _check_shapes(bundle.manifest, directory)
        load = partial(Session, execution_provider=execution_provider, threads=threads)
        self._encoder = load(bundle.encoder, name=f"{directory}/{graphs.encoder.file}")
        self._decoder = load(bundle.decoder, name=f"{directory}/{graphs.decoder.file}")
        self._batcher, self._queue_seconds = batcher, queue_seconds
        self.statistics: dict[GraphName, timing.Statistics] = {
            graph: timing.Statistics(graph=(bundle.manifest.name, graph)) for graph in ("encoder", "decoder")
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

    async def score(self, rows: Floats, *, explain: bool) -> Arrays:
        """`log_p_x` `[N]` of rows `[N, d + pixels]`: a latent, and the pixels in [0, 1] that it is to explain; with
        `explain`, the `log_p_pixels` `[N, pixels]` that it is the sum of, too."""
        return await (
            self._submit("explain", self._run_explaining, rows)
            if explain
            else self._submit("score", self._run_scoring, rows)
        )

    def check_room(self, lane: Lane, rows: int) -> None:
        """Refuse rows that the queue has no room for now.

        Raises:
            Overloaded: there is none.
        """
        self._batcher.check_room(self._key(lane), rows)

    @contextmanager
    def held(self, lane: Lane, rows: int) -> Iterator[None]:
        """While it lasts, the request in this context has room for so many rows, and whatever it runs is let in.

        Raises:
            Overloaded: the queue has no room for them now.
        """
        with self._batcher.hold(self._key(lane), rows, self.latency[lane]) as place:
            _place.set(place)
            try:
                yield
            finally:
                _place.set(None)

    @property
    def can_score(self) -> bool:
        """Whether there is a likelihood of images."""
        return "score" in self.latency

    @property
    def queued_rows(self) -> int:
        """Rows that wait for these graphs."""
        return self._batcher.queued_rows_of(self)

    def _key(self, lane: Lane) -> tuple["Graphs", Lane]:
        return self, lane  # without the shape of a row, which is the same for all: see `_check_shapes`

    async def _submit(self, lane: Lane, run: Run, rows: NDArray[Any], seconds: float | None = None) -> Arrays:
        patience = self._queue_seconds if seconds is None else min(seconds, self._queue_seconds)
        return await self._batcher.submit(
            self._key(lane),
            run,
            rows,
            latency=self.latency[lane],
            deadline=time.monotonic() + patience,
            timing=timing.current(),
            statistics=self.statistics["encoder" if lane == "encoder" else "decoder"],
            place=_place.get(),
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
        parameters, pixels = self._parameters(rows)
        return self._finite({"log_p_x": log_prob(self.manifest.likelihood, parameters, pixels)})

    def _run_explaining(self, rows: Floats) -> Arrays:
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
        """The likelihood's parameters and the pixels, `[N, pixels]` each, of rows as `_run_scoring` takes them."""
        latents, pixels = np.split(rows, [self.latent_shape[0]], axis=1)
        names = PARAMETERS[self.manifest.likelihood]
        parameters = self._decoder.run({"latent": np.ascontiguousarray(latents)}, names)
        return {name: values.reshape(len(rows), -1) for name, values in parameters.items()}, pixels

    def _warm_up(self) -> dict[Lane, Latency | None]:
        """Run each graph on zeros, compare what it gives with what the manifest says, and fit its latency. A graph with
        a loop has none: zeros tell nothing of other rows, and it is never run where the server would wait for it."""
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
        try:
            latency: dict[Lane, Latency] = {
                "encoder": Latency.measured(self._run_encoder, image),
                "decoder": Latency.measured(self._run_decoder, latent),
            }
            self._run_parameters(np.repeat(latent, 8, axis=0))
        except InferenceFailed as error:
            raise BundleError(
                f"{error}: it does not run with several rows: {str(error.__cause__).splitlines()[0]}"
            ) from error
        if self.manifest.stochastic and set(PARAMETERS[self.manifest.likelihood]) <= set(self._decoder.outputs):
            explained = np.zeros((1, latent.size + image.size), np.float32)
            try:
                latency["score"] = Latency.measured(self._run_scoring, explained)
            except (ValueError, InferenceFailed) as error:
                raise BundleError(f"{self._decoder.name} does not score images of its manifest's likelihood") from error
        # What the graphs give besides takes no time that can be told from theirs.
        latency["parameters"], latency["explain"] = latency["decoder"], latency.get("score", latency["decoder"])
        return {lane: None if self._session_of(lane).has_loop else known for lane, known in latency.items()}

    def _session_of(self, lane: Lane) -> Session:
        return self._encoder if lane == "encoder" else self._decoder


def _check_shapes(manifest: Manifest, directory: str) -> None:
    """Refuse what is not served yet: images of any size, latents that are no vectors."""
    image, latent = manifest.image, manifest.latent.shape
    if image.height is None or image.width is None or len(latent) != 1 or latent[0] is None:
        path = f"{directory}/{MANIFEST}"
        raise BundleError(f"{path} is of images without a fixed size or latents that are no vectors: not served yet")
