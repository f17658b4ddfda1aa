"""What smaller weights change, and how fast they are: both pairs of graphs on the same images, with the same draws."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from statistics import median

import numpy as np

from app.bundle.manifest import Manifest
from app.maths.gaussian import Floats, Posterior
from app.maths.likelihood import PARAMETERS, Doubles, Pixels, log_prob
from training.evaluate import pixels
from training.offline import BATCH
from training.offline import OfflineGraphs as Graphs

NO_ERROR = 1e-10
"""Mean squared error of a reconstruction that is exact, so that its PSNR is a number: 100 dB."""
ALONE, TOGETHER = 1, 32
"""Rows of a run that is timed."""
SECONDS, ROUNDS = 3.0, (5, 101)
"""That timing takes, about, for each; and how many rounds at least and at most."""


@dataclass(frozen=True)
class Change:
    """What one pair of graphs gives less what the other does; see `app.bundle.manifest.Reduced`."""

    change: float
    standard_error: float
    mean_change: float
    pixel_change: int


@dataclass(frozen=True)
class _Values:
    each: Doubles
    """`[N]`: -ELBO in nats, or PSNR in dB."""
    posterior: Posterior
    reconstructions: Pixels


def has_likelihood(manifest: Manifest) -> bool:
    """Whether images have an ELBO: there are a posterior, and the parameters of a likelihood."""
    return manifest.stochastic and set(PARAMETERS[manifest.likelihood]) <= set(manifest.graphs.decoder.outputs)


def measure_change(before: Graphs, now: Graphs, images: Pixels, seed: int) -> Change:
    """The change from one pair of graphs to the other on images uint8 `[N, C, H, W]`, as the encoder gets them.

    Raises:
        InferenceFailed: a graph gives values that are not finite.
    """
    old, new = _measure(before, images, seed), _measure(now, images, seed)
    changes = new.each - old.each
    moved = np.abs(new.posterior.mean.astype(np.float64) - old.posterior.mean) / _spread(old.posterior)
    levels = np.abs(new.reconstructions.astype(np.int16) - old.reconstructions)
    return Change(
        float(changes.mean()),
        float(changes.std() / np.sqrt(len(changes))),
        float(moved.max()),
        int(levels.max()),
    )


def _measure(graphs: Graphs, images: Pixels, seed: int) -> _Values:
    posterior = graphs.encode(images)
    chunks = [slice(start, start + BATCH) for start in range(0, len(images), BATCH)]
    if has_likelihood(graphs.manifest):
        latents = posterior.draw(seed)
        reconstruction = [_reconstruction(graphs, images[rows], latents[rows]) for rows in chunks]
        each = np.concatenate(reconstruction) + posterior.kl().reshape(len(images), -1).sum(axis=1)
        return _Values(each, posterior, graphs.decode(posterior.mean))
    decoded = graphs.decode(posterior.mean)
    errors = [np.square(pixels(images[rows]) - pixels(decoded[rows])).mean(axis=1, dtype=np.float64) for rows in chunks]
    return _Values(-10 * np.log10(np.maximum(np.concatenate(errors), NO_ERROR)), posterior, decoded)


def _reconstruction(graphs: Graphs, images: Pixels, latents: Floats) -> Doubles:
    """-log p(x|z) `[N]`, in nats."""
    parameters = {name: values.reshape(len(values), -1) for name, values in graphs.parameters(latents).items()}
    return -log_prob(graphs.manifest.likelihood, parameters, pixels(images))


def _spread(posterior: Posterior) -> Doubles:
    """Standard deviations that means are told in; at least a little of each, so that none is told in nothing."""
    if posterior.log_std is not None:
        return np.asarray(np.exp(posterior.log_std.astype(np.float64)))
    return np.asarray(np.maximum(posterior.mean.std(axis=0, dtype=np.float64), 1e-6))


def measure_speed(before: Graphs, now: Graphs, images: Pixels, halves: Collection[str]) -> tuple[float, float]:
    """How many times as fast rows go through `encoder` and `decoder`, or the one of them that is among `halves`, ALONE
    and TOGETHER: medians of rounds that alternate.
    """
    alone, together = (
        _speed(before, now, np.resize(images, (rows, *images.shape[1:])), halves) for rows in (ALONE, TOGETHER)
    )
    return alone, together


def _speed(before: Graphs, now: Graphs, images: Pixels, halves: Collection[str]) -> float:
    latents = before.encode(images).mean

    def seconds(graphs: Graphs) -> float:
        started = time.perf_counter()
        if "encoder" in halves:
            graphs.encode(images)
        if "decoder" in halves:
            graphs.decode(latents)
        return time.perf_counter() - started

    def ratio(old_first: bool) -> float:
        first, second = (before, now) if old_first else (now, before)
        earlier, later = seconds(first), seconds(second)
        return earlier / later if old_first else later / earlier

    once = seconds(before) + seconds(now)  # which warms them up, too
    rounds = max(ROUNDS[0], min(ROUNDS[1], int(SECONDS / once)))
    return median(ratio(old_first=index % 2 == 0) for index in range(rounds))
