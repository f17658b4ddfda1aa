"""What a bundle is worth, measured through its own graphs on images it never saw.

    python -m training evaluate models/mnist/1

Every value is in nats an image. Images are dynamically binarized with a seeded draw, because a Bernoulli likelihood is
one on binary pixels only; the encoder is given the binary image, too. An autoencoder without a posterior has no
likelihood: only its reconstruction is measured, on pixels of the kind that it was trained on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app import bundle
from app.bundle import Manifest
from app.gaussian import Floats, generator
from training.card import metric_rows, write_card
from training.binarize import binarize
from training.data import load_dataset, read_options
from training.graphs import Graphs

ROWS = 1024
"""Latents decoded at a time: with logits and temporaries some tens of MB."""
TRAIN_IMAGES = 10_000
TRAIN_K = 4
"""Draws an image of the training split: few do, where only the mean over many images is asked for."""
ACTIVE_VARIANCE = 0.01

Pixels = NDArray[np.uint8]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Terms:
    """What N images give, in nats."""

    reconstruction: Doubles
    """`[N]`: -log p(x|z) averaged over the k draws. That estimates E_q as one draw does, with less variance."""
    kl: Doubles
    """`[N, d]`: KL(q(z|x) || p(z)) of each latent dimension, in closed form."""
    log_likelihood: Doubles
    """`[N]`: the IWAE-k bound on log p(x)."""
    mean: Floats
    """`[N, d]`: posterior means."""

    @property
    def negative_elbo(self) -> float:
        return float(self.reconstruction.mean() + self.kl.sum(axis=1).mean())


def evaluate(
    directory: Path, *, data_dir: Path, k: int = 128, images: int | None = None, seed: int = 0, write: bool = True
) -> dict[str, Any]:
    """Measure the bundle in `directory` on the test split, and return what the manifest calls its metrics.

    `k` is the number of draws an image, `images` the number of images (of the training split, too); all, if None. If
    `write`, and only if every test image was measured, the metrics go into the manifest and the card is rendered anew.

    Raises:
        BundleError: the bundle cannot be read.
        DataError: the data set cannot be had.
    """
    read = bundle.read_bundle(directory)
    graphs, training = Graphs(read), read.manifest.training
    dataset = load_dataset(read_options(directory), data_dir)
    test, train = dataset.test.images[:images], dataset.train.images[:TRAIN_IMAGES][:images]
    if read.manifest.stochastic:
        metrics = measure(graphs, test, train, k=k, seed=seed)
    else:
        metrics = measure_autoencoder(graphs, test, train, dynamic=training.binarization == "dynamic", seed=seed)
    if write and len(test) == len(dataset.test.images):
        bundle.write_manifest(directory, read.manifest.model_copy(update={"metrics": metrics}))
        write_card(directory)
    return metrics


def measure(graphs: Graphs, test: Pixels, train: Pixels, *, k: int, seed: int) -> dict[str, Any]:
    """Metrics of a variational autoencoder on grey images `[N, C, H, W]`, which are binarized here."""
    with _progress() as progress:
        held_out = measure_terms(graphs, binarize(test, seed), k=k, seed=seed, progress=progress, name="test")
        seen = measure_terms(graphs, binarize(train, seed), k=TRAIN_K, seed=seed, progress=progress, name="train")
    log_likelihood, variance = held_out.log_likelihood, held_out.mean.var(axis=0, dtype=np.float64)
    return {
        "split": "test",
        "binarization": "dynamic",
        "images": len(test),
        "k": k,
        "seed": seed,
        "elbo": _rounded(-held_out.negative_elbo),
        "negative_elbo": _rounded(held_out.negative_elbo),
        "nll": _rounded(-log_likelihood.mean()),
        "nll_standard_error": _rounded(log_likelihood.std() / np.sqrt(len(test))),
        "reconstruction": _rounded(held_out.reconstruction.mean()),
        "kl": _rounded(held_out.kl.sum(axis=1).mean()),
        "kl_per_dimension": [_rounded(value) for value in held_out.kl.mean(axis=0)],
        "active_units": int((variance > ACTIVE_VARIANCE).sum()),
        "train_negative_elbo": _rounded(seen.negative_elbo),
        "train_images": len(train),
        "train_k": TRAIN_K,
    }


def measure_autoencoder(graphs: Graphs, test: Pixels, train: Pixels, *, dynamic: bool, seed: int) -> dict[str, Any]:
    """Metrics of a plain autoencoder: the cross entropy of its reconstructions, with grey values unless `dynamic`."""
    if dynamic:
        test, train = binarize(test, seed), binarize(train, seed)
    with _progress() as progress:
        held_out, seen = (
            float(measure_reconstruction(graphs, split, progress=progress, name=name).mean())
            for split, name in ((test, "test"), (train, "train"))
        )
    return {
        "split": "test",
        "binarization": "dynamic" if dynamic else "none",
        "images": len(test),
        "seed": seed,
        "reconstruction": _rounded(held_out),
        "train_reconstruction": _rounded(seen),
        "train_images": len(train),
    }


def measure_terms(graphs: Graphs, images: Pixels, *, k: int, seed: int, progress: Progress, name: str) -> Terms:
    """The terms of binary images `[N, C, H, W]` of 0 and 255, with k draws from each image's posterior.

    IWAE-k is log 1/k sum_i p(x|z_i) p(z_i) / q(z_i|x) (Burda, Grosse & Salakhutdinov 2015, equation 8).
    """
    posterior = graphs.encode(images)
    assert posterior.log_std is not None
    log_likelihood, reconstruction = np.empty(len(images)), np.empty(len(images))
    for rows in _chunks(len(images), max(1, ROWS // k), progress, name):
        mean, log_std = posterior.mean[rows, None], posterior.log_std[rows, None]
        eps = normal_draws(seed, rows, k, mean.shape[2])
        latents = np.asarray(mean + np.exp(log_std) * eps, np.float32)  # [n, k, d]
        logits = graphs.logits(latents.reshape(-1, latents.shape[2]))
        log_p_x = -cross_entropy(logits.reshape(*latents.shape[:2], -1), pixels(images[rows])[:, None])  # [n, k]
        # log p(z) - log q(z|x): both normalising constants are the same, and cancel.
        log_ratio = (0.5 * (np.square(eps) - np.square(latents)) + log_std).sum(axis=2, dtype=np.float64)
        log_likelihood[rows] = log_mean_exp(log_p_x + log_ratio)
        reconstruction[rows] = -log_p_x.mean(axis=1)
    return Terms(reconstruction, posterior.kl(), log_likelihood, posterior.mean)


def measure_reconstruction(graphs: Graphs, images: Pixels, *, progress: Progress, name: str) -> Doubles:
    """Cross entropy `[N]` of images `[N, C, H, W]` under their own reconstructions, without a draw."""
    values = np.empty(len(images))
    for rows in _chunks(len(images), ROWS, progress, name):
        logits = graphs.logits(graphs.encode(images[rows]).mean)
        values[rows] = cross_entropy(logits.reshape(len(logits), -1), pixels(images[rows]))
    return values


def normal_draws(seed: int, rows: slice, k: int, latent: int) -> Floats:
    """Draws from N(0, I), `[rows, k, latent]`; a row's first draw is that of `app.gaussian.standard_normal`."""
    draws = [generator(seed, row).standard_normal((k, latent), np.float32) for row in range(rows.start, rows.stop)]
    return np.stack(draws)


def pixels(images: Pixels) -> Floats:
    """Images `[N, C, H, W]` as `[N, C * H * W]` in [0, 1]."""
    values = images.reshape(len(images), -1).astype(np.float32)
    values /= 255
    return values


def cross_entropy(logits: Floats, targets: Floats) -> Doubles:
    """Cross entropy of targets in [0, 1] under logits, summed over the last axis; -log p(x|z) if they are binary.

    max(l, 0) - l x + log(1 + exp(-|l|)), which neither overflows nor cancels.
    """
    values = np.abs(logits)
    np.negative(values, out=values)
    np.exp(values, out=values)
    np.log1p(values, out=values)
    values += np.maximum(logits, 0)
    values -= logits * targets
    return np.asarray(values.sum(axis=-1, dtype=np.float64))


def log_mean_exp(values: Doubles) -> Doubles:
    """log(mean(exp(values))) over the last axis, without overflow."""
    largest = values.max(axis=-1, keepdims=True)
    return np.asarray(largest[..., 0] + np.log(np.exp(values - largest).mean(axis=-1)))


def metric_table(metrics: dict[str, Any], manifest: Manifest) -> Table:
    """The metrics as the card has them, for a terminal."""
    table = Table("metric", "value", "measured on", title=f"{manifest.name} {manifest.version}, nats an image")
    for row in metric_rows(metrics, manifest):
        table.add_row(*row)
    return table


def _chunks(count: int, size: int, progress: Progress, name: str) -> Iterator[slice]:
    """Slices of at most `size` rows, whose progress is shown as they are used."""
    task = progress.add_task(name, total=count)
    for start in range(0, count, size):
        rows = slice(start, min(start + size, count))
        yield rows
        progress.update(task, completed=rows.stop)


def _progress() -> Progress:
    return Progress(TextColumn("{task.description:>5}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def _rounded(value: float) -> float:
    return round(float(value), 4)
