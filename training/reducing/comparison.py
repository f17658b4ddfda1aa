"""Compare a bundle with its reduction: results and speed of both pairs of graphs, on the same images and draws."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from statistics import median

import numpy as np

from app.bundle.manifest import Manifest
from app.maths.gaussian import Floats, Posterior
from app.maths.likelihood import PARAMETERS, Doubles, Pixels, log_prob
from training.evaluate import pixels
from training.offline import BATCH, OfflineGraphs

MIN_ERROR = 1e-10
"""Floor of the mean squared error: an exact reconstruction has a PSNR of 100 dB, not infinity."""
MIN_SPREAD = 1e-6
"""Floor of the standard deviations that changes are divided by."""
MANY_ROWS = 32
"""Rows of the larger timed batch; the smaller one is a single row."""
SECONDS, MIN_ROUNDS, MAX_ROUNDS = 3.0, 5, 101
"""Time budget of each timing, and the bounds of its number of rounds."""


@dataclass(frozen=True)
class Change:
    """The results of the reduced graphs minus those of the original; see `app.bundle.manifest.Reduced`."""

    change: float
    """Change of -ELBO in nats per image, or of PSNR in dB; the mean over the images."""
    standard_error: float
    mean_change: float
    pixel_change: int


@dataclass(frozen=True)
class _Results:
    measure: Doubles
    """-ELBO in nats, or PSNR in dB, `[N]`."""
    posterior: Posterior
    reconstructions: Pixels


def has_likelihood(manifest: Manifest) -> bool:
    """Whether a model has an ELBO: a posterior, and outputs with the parameters of its likelihood."""
    return manifest.stochastic and set(PARAMETERS[manifest.likelihood]) <= set(manifest.graphs.decoder.outputs)


def measure_change(original: OfflineGraphs, reduced: OfflineGraphs, images: Pixels, seed: int) -> Change:
    """Measure the change on images uint8 `[N, C, H, W]`, prepared as the encoder takes them.

    Raises:
        InferenceFailed: a graph returns values that are not finite.
    """
    old, new = _results(original, images, seed), _results(reduced, images, seed)
    changes = new.measure - old.measure
    if old.posterior.log_std is not None:
        spread = np.exp(old.posterior.log_std.astype(np.float64))
    else:
        spread = np.maximum(old.posterior.mean.std(axis=0, dtype=np.float64), MIN_SPREAD)
    return Change(
        float(changes.mean()),
        float(changes.std() / np.sqrt(len(changes))),
        float((np.abs(new.posterior.mean.astype(np.float64) - old.posterior.mean) / spread).max()),
        int(np.abs(new.reconstructions.astype(np.int16) - old.reconstructions).max()),
    )


def _results(graphs: OfflineGraphs, images: Pixels, seed: int) -> _Results:
    posterior = graphs.encode(images)
    decoded = graphs.decode(posterior.mean)
    chunks = [slice(start, start + BATCH) for start in range(0, len(images), BATCH)]
    if has_likelihood(graphs.manifest):
        latents = posterior.draw(seed)
        reconstruction = np.concatenate([_reconstruction(graphs, images[rows], latents[rows]) for rows in chunks])
        return _Results(reconstruction + posterior.kl().reshape(len(images), -1).sum(axis=1), posterior, decoded)
    errors = [np.square(pixels(images[rows]) - pixels(decoded[rows])).mean(axis=1, dtype=np.float64) for rows in chunks]
    return _Results(-10 * np.log10(np.maximum(np.concatenate(errors), MIN_ERROR)), posterior, decoded)


def _reconstruction(graphs: OfflineGraphs, images: Pixels, latents: Floats) -> Doubles:
    """-log p(x|z) in nats, `[N]`."""
    parameters = {name: values.reshape(len(values), -1) for name, values in graphs.parameters(latents).items()}
    return -log_prob(graphs.manifest.likelihood, parameters, pixels(images))


def measure_speed_up(
    original: OfflineGraphs, reduced: OfflineGraphs, images: Pixels, names: Collection[str]
) -> tuple[float, float]:
    """Measure how many times as fast the reduced graphs are, for one row and for MANY_ROWS.

    `names` are the reduced graphs: `encoder`, `decoder` or both. Each number is the median over rounds. Original and
    reduction take turns in running first.
    """
    alone, together = (
        _speed_up(original, reduced, np.resize(images, (rows, *images.shape[1:])), names) for rows in (1, MANY_ROWS)
    )
    return alone, together


def _speed_up(original: OfflineGraphs, reduced: OfflineGraphs, images: Pixels, names: Collection[str]) -> float:
    latents = original.encode(images).mean

    def seconds(graphs: OfflineGraphs) -> float:
        started = time.perf_counter()
        if "encoder" in names:
            graphs.encode(images)
        if "decoder" in names:
            graphs.decode(latents)
        return time.perf_counter() - started

    def ratio(original_first: bool) -> float:
        first, second = (original, reduced) if original_first else (reduced, original)
        earlier, later = seconds(first), seconds(second)
        return earlier / later if original_first else later / earlier

    warm_up = seconds(original) + seconds(reduced)
    rounds = max(MIN_ROUNDS, min(MAX_ROUNDS, int(SECONDS / warm_up)))
    return median(ratio(original_first=index % 2 == 0) for index in range(rounds))
