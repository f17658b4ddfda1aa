"""A bundle's two graphs, run in batches through ONNX Runtime. Needs no torch."""

import os
from functools import partial

import numpy as np
from numpy.typing import NDArray

from app.bundle.files import Bundle
from app.inference.session import ExecutionProvider, Session
from app.maths.gaussian import Floats, Posterior

BATCH = 256
"""Rows per run: more would take more memory without being faster on a CPU."""


class OfflineGraphs:
    """Encoder and decoder of a bundle. Images are uint8 `[N, C, H, W]`, latents float32 `[N, latent]`, for any N."""

    def __init__(
        self, bundle: Bundle, *, execution_provider: ExecutionProvider = "cpu", threads: int | None = None
    ) -> None:
        """Load both graphs. Without `threads`, each gets a thread per CPU.

        Raises:
            BundleError: ONNX Runtime cannot load one of them.
            ExecutionProviderError: a graph fell back to another provider.
        """
        self.manifest = bundle.manifest
        label = f"{bundle.manifest.name} {bundle.manifest.version}"
        load = partial(Session, execution_provider=execution_provider, threads=threads or os.cpu_count() or 1)
        self._encoder = load(bundle.encoder, name=f"encoder of {label}")
        self._decoder = load(bundle.decoder, name=f"decoder of {label}")

    def encode(self, images: NDArray[np.uint8]) -> Posterior:
        """q(z|x) of images."""
        runs = [self._encoder.run({"image": images[rows]}) for rows in _batches(len(images))]
        log_std = np.concatenate([run["log_std"] for run in runs]) if self.manifest.stochastic else None
        return Posterior(np.concatenate([run["mean"] for run in runs]), log_std)

    def decode(self, latents: Floats) -> NDArray[np.uint8]:
        """Images uint8 `[N, C, H, W]`: the decoder's mean."""
        runs = [self._decoder.run({"latent": latents[rows]}, ["image"])["image"] for rows in _batches(len(latents))]
        return np.concatenate(runs)

    def parameters(self, latents: Floats) -> dict[str, Floats]:
        """The likelihood's parameters, each `[N, C, H, W]`: `logits`, or `mean` and `log_scale`."""
        names = [name for name in self.manifest.graphs.decoder.outputs if name != "image"]
        runs = [self._decoder.run({"latent": latents[rows]}, names) for rows in _batches(len(latents))]
        return {name: np.concatenate([run[name] for run in runs]) for name in names}


def _batches(count: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]
