"""Compare a bundle with its reduction: results and speed of both pairs of graphs, on the same images and draws."""

import time
from collections.abc import Collection
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


def has_likelihood(manifest: Manifest) -> bool:
    """Whether a model has an ELBO: a posterior, and outputs with the parameters of its likelihood."""
    return manifest.stochastic and set(PARAMETERS[manifest.likelihood]) <= set(manifest.graphs.decoder.outputs)


def measure_change(original: OfflineGraphs, reduced: OfflineGraphs, images: Pixels, seed: int) -> dict[str, float]:
    """Measure the change on images uint8 `[N, C, H, W]`, prepared as the encoder takes them.

    The keys have the names of the fields of `app.bundle.manifest.Reduced`.

    Raises:
        InferenceFailed: a graph returns values that are not finite.
    """
    old, old_posterior, old_decoded = _results(original, images, seed)
    new, new_posterior, new_decoded = _results(reduced, images, seed)
    changes, mean = new - old, old_posterior.mean
    if old_posterior.log_std is not None:
        spread = np.exp(old_posterior.log_std.astype(np.float64))
    else:
        spread = np.maximum(mean.std(axis=0, dtype=np.float64), MIN_SPREAD)
    return {
        "change": round(float(changes.mean()), 4),
        "standard_error": round(float(changes.std() / np.sqrt(len(changes))), 4),
        "mean_change": round(float((np.abs(new_posterior.mean.astype(np.float64) - mean) / spread).max()), 4),
        "pixel_change": int(np.abs(new_decoded.astype(np.int16) - old_decoded).max()),
    }


def _results(graphs: OfflineGraphs, images: Pixels, seed: int) -> tuple[Doubles, Posterior, Pixels]:
    """-ELBO in nats or PSNR in dB `[N]`, the posterior, and the reconstructions."""
    posterior = graphs.encode(images)
    decoded = graphs.decode(posterior.mean)
    chunks = [slice(start, start + BATCH) for start in range(0, len(images), BATCH)]
    if has_likelihood(graphs.manifest):
        latents = posterior.draw(seed)
        reconstruction = np.concatenate([_reconstruction(graphs, images[rows], latents[rows]) for rows in chunks])
        return reconstruction + posterior.kl().reshape(len(images), -1).sum(axis=1), posterior, decoded
    errors = [np.square(pixels(images[rows]) - pixels(decoded[rows])).mean(axis=1, dtype=np.float64) for rows in chunks]
    return -10 * np.log10(np.maximum(np.concatenate(errors), MIN_ERROR)), posterior, decoded


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
