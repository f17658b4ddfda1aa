"""Lanes: the purposes that rows are run for, each with a function from rows to named outputs."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.bundle.files import Bundle
from app.bundle.geometry import Geometry
from app.errors import NotFinite
from app.inference.latency import RunRows
from app.inference.session import ExecutionProvider, Session, check_finite
from app.maths.arrays import Arrays, Floats
from app.maths.likelihood import PARAMETERS, log_prob

GraphName = Literal["encoder", "decoder"]
Lane = Literal["encoder", "decoder", "parameters", "score", "explain"]
"""`encoder` and `decoder` run the graphs; `parameters` is the decoder with its likelihood's parameters; `score` and
`explain` are the decoder followed by the likelihood, of each image or of each pixel."""


class Sessions:
    """Both graphs of one bundle as ONNX Runtime sessions, and the functions of the lanes."""

    def __init__(self, bundle: Bundle, execution_provider: ExecutionProvider, threads: int) -> None:
        """Load both graphs.

        Raises:
            BundleError: ONNX Runtime cannot load a graph.
            ExecutionProviderError: a graph fell back to another provider.
        """
        self.manifest, self.geometry = bundle.manifest, Geometry.of(bundle.manifest)
        encoder, decoder = (
            Session(
                model,
                name=f"{bundle.manifest.name}/{bundle.manifest.version}/{file.file}",
                execution_provider=execution_provider,
                threads=threads,
                any_size=self.geometry.size is None,
            )
            for file, model in zip(
                bundle.manifest.graphs_of(execution_provider), bundle.graphs_of(execution_provider), strict=True
            )
        )
        self.encoder, self.decoder = encoder, decoder
        has_parameters = set(PARAMETERS[self.manifest.likelihood]) <= set(decoder.outputs)
        self.can_score = self.manifest.stochastic and has_parameters and self.geometry.size is not None
        """Whether the model has a likelihood of images."""

    def lanes(self) -> dict[Lane, RunRows]:
        """The function of each lane; `score` and `explain` fail unless the model can score."""
        return {
            "encoder": self.encode,
            "decoder": self.decode,
            "parameters": self.parameters,
            "score": self.score,
            "explain": self.explain,
        }

    def encode(self, rows: NDArray[np.uint8]) -> Arrays:
        """`mean` and, if there is a posterior, `log_std` `[N, *latent]` of images `[N, C, H, W]`."""
        return self.encoder.run({"image": rows})

    def decode(self, rows: Floats) -> Arrays:
        """`image` `[N, C, H, W]` of latents `[N, *latent]`, without the parameters that only scoring needs."""
        return self.decoder.run({"latent": rows}, ["image"])

    def parameters(self, rows: Floats) -> Arrays:
        """`image` and the likelihood's parameters, `[N, C, H, W]` each, of latents `[N, *latent]`."""
        return self.decoder.run({"latent": rows})

    def score(self, rows: Floats) -> Arrays:
        """`log_p_x` `[N]`, log p(x|z) in nats, of rows `[N, d + pixels]`: a latent, and an image's pixels in [0, 1].

        Raises:
            NotFinite: the parameters are finite, but the score is not.
        """
        parameters, pixels = self._parameters_and_pixels(rows)
        return self._finite({"log_p_x": log_prob(self.manifest.likelihood, parameters, pixels)})

    def explain(self, rows: Floats) -> Arrays:
        """`log_p_x` as `score`, and its terms `log_p_pixels` `[N, pixels]`, log p(x_i|z).

        Raises:
            NotFinite: as `score`.
        """
        parameters, pixels = self._parameters_and_pixels(rows)
        each = {name: values[..., None] for name, values in parameters.items()}
        terms = log_prob(self.manifest.likelihood, each, pixels[..., None]).astype(np.float32)
        return self._finite({"log_p_x": terms.sum(axis=1, dtype=np.float64), "log_p_pixels": terms})

    def _parameters_and_pixels(self, rows: Floats) -> tuple[dict[str, Floats], Floats]:
        """The likelihood's parameters and the pixels, `[N, pixels]` each, of rows as `score` takes them."""
        shape, names = self.geometry.latent_shape, PARAMETERS[self.manifest.likelihood]
        latents, pixels = np.split(rows, [math.prod(shape)], axis=1)
        parameters = self.decoder.run({"latent": latents.reshape(-1, *shape)}, names)
        return {name: values.reshape(len(rows), -1) for name, values in parameters.items()}, pixels

    def _finite(self, scores: Arrays) -> Arrays:
        try:
            check_finite(scores)
        except FloatingPointError as error:
            raise NotFinite(f"{self.decoder.name} failed: {error}") from error
        return scores
