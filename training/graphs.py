"""The two graphs of a bundle, run batch by batch through ONNX Runtime. Needs no torch."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.bundle import Bundle
from app.gaussian import Floats, Posterior
from app.session import Session

BATCH = 256
"""Rows a run: more cost memory, and are no faster on a CPU."""


class Graphs:
    """Encoder and decoder of a bundle. Images are uint8 `[N, C, H, W]`, latents float32 `[N, latent]`, N any number."""

    def __init__(self, bundle: Bundle) -> None:
        """Load both graphs, with a thread for each CPU.

        Raises:
            BundleError: ONNX Runtime cannot load one of them.
        """
        self.manifest = bundle.manifest
        label, threads = f"{bundle.manifest.name} {bundle.manifest.version}", os.cpu_count() or 1
        self._encoder = Session(bundle.encoder, name=f"encoder of {label}", threads=threads)
        self._decoder = Session(bundle.decoder, name=f"decoder of {label}", threads=threads)

    def encode(self, images: NDArray[np.uint8]) -> Posterior:
        """q(z|x) of images."""
        runs = [self._encoder.run({"image": images[rows]}) for rows in _batches(len(images))]
        log_std = np.concatenate([run["log_std"] for run in runs]) if self.manifest.stochastic else None
        return Posterior(np.concatenate([run["mean"] for run in runs]), log_std)

    def decode(self, latents: Floats) -> NDArray[np.uint8]:
        """Images `[N, C, H, W]`, the decoder's mean in grey levels."""
        return self._run_decoder(latents, "image")

    def logits(self, latents: Floats) -> Floats:
        """Bernoulli logits `[N, C, H, W]`."""
        return self._run_decoder(latents, "logits")

    def _run_decoder(self, latents: Floats, output: str) -> NDArray[Any]:
        runs = [self._decoder.run({"latent": latents[rows]}, [output])[output] for rows in _batches(len(latents))]
        return np.concatenate(runs)


def _batches(count: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]
