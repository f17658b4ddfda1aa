"""Evaluation of a bundle through its own graphs, on images that it was not trained on.

    python -m training evaluate models/mnist/1

Values are in nats per image. With a Bernoulli likelihood, images are binarized, also for the encoder: dynamically, by a
seeded draw, or statically, by the draw that binarized the training images. With other likelihoods, images are not
changed. An autoencoder without a posterior has no likelihood: only its reconstruction is measured, on the kind of
pixels that it was trained on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from app.bundle import files as bundle
from app.bundle.files import Bundle
from app.bundle.manifest import Manifest
from app.maths.gaussian import Floats, Mixture, Posterior, log_ratio
from app.maths.likelihood import Doubles, Pixels, binarize, log_mean_exp, log_prob, threshold
from training.atomic import whole
from training.bundling.aggregate import gap_to_prior
from training.bundling.calibration import score_quantiles
from training.card import metric_rows, write_card
from training.data import load_dataset, read_options
from training.offline import OfflineGraphs

ROWS = 1024
"""Latents decoded at once: some tens of MB, with logits and temporary arrays."""
TRAIN_IMAGES = 10_000
TRAIN_K = 16
"""Draws per image of the training split. The test split is measured with this k as well, for comparison."""
CALIBRATED_K = (1, 16, 128)
"""Numbers of draws for which the server has percentiles of scores."""
ACTIVE_VARIANCE = 0.01
"""A dimension whose posterior means have a lower variance is inactive (Burda, Grosse & Salakhutdinov 2015)."""


@dataclass(frozen=True)
class MeasuredTerms:
    """Loss terms of N images, in nats."""

    reconstruction: Doubles
    """-log p(x|z) `[N]`, averaged over the k draws: an estimate of E_q with less variance than one draw's."""
    kl: Doubles
    """KL(q(z|x) || p(z)) `[N, d]` of each latent dimension, in closed form."""
    bounds: dict[int, Doubles]
    """IWAE bounds `[N]` on log p(x), by the number of draws they use; the largest key is k."""
    posterior: Posterior
    """Posterior of the images, as the encoder received them."""
    squared_error: Doubles
    """Mean squared error `[N]` of the decoded means, over pixels in [0, 1]."""

    @property
    def negative_elbo(self) -> float:
        return float(self.reconstruction.mean() + self.kl.sum(axis=1).mean())


def evaluate(
    directory: Path, *, data_dir: Path, k: int = 128, images: int | None = None, seed: int = 0, write: bool = True
) -> dict[str, Any]:
    """Measure the bundle in `directory` on the test split, and return the metrics for its manifest.

    `k` is the number of draws per image. `images` limits the images of both splits; None uses all. With `write`, the
    metrics of all test images go into the manifest, the server's calibration into the bundle, and the card is rendered
    again. Of a measurement of fewer images, only the bound is written, as `tight`, and only if `k` exceeds the
    manifest's.

    Raises:
        BundleError: the bundle cannot be read.
        DataError: the data set is missing or malformed.
    """
    read = bundle.read_bundle(directory)
    dataset = load_dataset(read_options(directory), data_dir)
    test, train = dataset.test.images[:images], dataset.train.images[:TRAIN_IMAGES][:images]
    metrics, arrays = measure(read, test, train, k=k, seed=seed)
    if write and len(test) == len(dataset.test.images):
        if "tight" in read.manifest.metrics:
            metrics["tight"] = read.manifest.metrics["tight"]
        write_metrics(directory, read.manifest, metrics, arrays)
    elif write and k > read.manifest.metrics.get("k", k):
        kept = ("nll", "nll_standard_error", "k", "images", "seed")
        tight = read.manifest.metrics | {"tight": {name: metrics[name] for name in kept}}
        write_metrics(directory, read.manifest, tight, {})
    return metrics


def write_metrics(
    directory: Path, manifest: Manifest, metrics: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> None:
    """Put metrics and calibration arrays into a bundle, atomically, and render its card."""
    with whole(directory, copy=directory) as partial_directory:
        written = {name: bundle.write_array(partial_directory, name, array) for name, array in arrays.items()}
        update = {"metrics": metrics, "arrays": manifest.arrays | written}
        bundle.write_manifest(partial_directory, manifest.model_copy(update=update))
        write_card(partial_directory)


def measure(
    read: Bundle, test: Pixels, train: Pixels, *, k: int, seed: int
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Metrics and calibration arrays of a bundle, from unprepared images `[N, C, H, W]` of the data set."""
    graphs, manifest, kind = OfflineGraphs(read), read.manifest, measured_binarization(read.manifest)
    columns = TextColumn("{task.description:>5}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        terms = partial(measure_terms, graphs, seed=seed, progress=progress)
        held_out = terms(prepare(test, manifest, seed), k=k if manifest.stochastic else 1, name="test")
        seen = terms(prepare(train, manifest, seed), k=min(k, TRAIN_K) if manifest.stochastic else 1, name="train")
        scores = held_out.bounds
        if kind == "static" and manifest.stochastic:  # the server binarizes at a threshold, without a draw
            scores = terms(threshold(test), k=k, name="threshold").bounds
    metrics: dict[str, Any] = {
        "split": "test",
        "binarization": kind,
        "images": len(test),
        "reconstruction": _rounded(held_out.reconstruction.mean()),
        "mean_squared_error": _rounded(held_out.squared_error.mean(), 6),
        "train_images": len(train),
    }
    if not manifest.stochastic:
        metrics["train_reconstruction"] = _rounded(seen.reconstruction.mean())
        return metrics | _gap(read, held_out.posterior.mean), {}
    arrays = score_quantiles({k: scores[k] for k in CALIBRATED_K if k in scores})
    log_likelihood, variance = held_out.bounds[k], held_out.posterior.mean.var(axis=0, dtype=np.float64)
    train_k = max(seen.bounds)
    metrics |= {
        "k": k,
        "seed": seed,
        "elbo": _rounded(-held_out.negative_elbo),
        "negative_elbo": _rounded(held_out.negative_elbo),
        "nll": _rounded(-log_likelihood.mean()),
        "nll_standard_error": _rounded(log_likelihood.std() / np.sqrt(len(test))),
        "kl": _rounded(held_out.kl.sum(axis=1).mean()),
        "kl_per_dimension": [_rounded(value) for value in held_out.kl.mean(axis=0)],
        "active_units": int((variance > ACTIVE_VARIANCE).sum()),
        "variance_per_dimension": [_rounded(value, 6) for value in variance],
        "nll_at_train_k": _rounded(-held_out.bounds[train_k].mean()),
        "train_nll": _rounded(-seen.bounds[train_k].mean()),
        "train_negative_elbo": _rounded(seen.negative_elbo),
        "train_k": train_k,
    }
    if manifest.likelihood == "discretized_logistic":
        metrics["bits_per_dimension"] = _rounded(metrics["nll"] / (np.log(2) * test[0].size))
    return metrics | _gap(read, held_out.posterior.draw(seed)), arrays


def _gap(read: Bundle, latents: Floats) -> dict[str, float]:
    """The aggregated posterior's distance from the prior, by the bundle's mixture and held-out latents `[N, d]`."""
    mixture = Mixture.of(read.arrays)
    return {} if mixture is None else {"aggregate_gap": _rounded(gap_to_prior(mixture, latents))}


def prepare(images: Pixels, manifest: Manifest, seed: int) -> Pixels:
    """Images, binarized if the likelihood is Bernoulli's; see the module's docstring."""
    kind = measured_binarization(manifest)
    return images if kind == "none" else binarize(images, manifest.training.seed if kind == "static" else seed)


def measured_binarization(manifest: Manifest) -> str:
    """How pixels are binarized here: as in training, except that a posterior trained on gray values is measured on
    dynamic draws."""
    training = manifest.training.binarization
    if manifest.likelihood == "bernoulli" and manifest.stochastic and training == "none":
        return "dynamic"
    return training


def measure_terms(
    graphs: OfflineGraphs, images: Pixels, *, k: int, seed: int, progress: Progress, name: str
) -> MeasuredTerms:
    """Loss terms of prepared images uint8 `[N, C, H, W]`, with k draws from each posterior.

    IWAE-k is log 1/k sum_i p(x|z_i) p(z_i) / q(z_i|x) (Burda, Grosse & Salakhutdinov 2015, equation 8). Without a
    posterior the one draw is the mean, and there is no bound.
    """
    manifest, posterior, count = graphs.manifest, graphs.encode(images), len(images)
    log_std = posterior.log_std
    ks = sorted({j for j in (*CALIBRATED_K, TRAIN_K) if j <= k} | {k}) if log_std is not None else []
    bounds, reconstruction = {j: np.empty(count) for j in ks}, np.empty(count)
    for rows in _chunks(count, max(1, ROWS // k), progress, name):
        latents = posterior.mean[rows, None]  # [n, k, d]
        if log_std is not None:
            eps, latents = posterior.draws(seed, range(rows.start, rows.stop), k)
        parameters = graphs.parameters(latents.reshape(-1, latents.shape[2]))
        parts = {part: values.reshape(*latents.shape[:2], -1) for part, values in parameters.items()}
        log_p_x = log_prob(manifest.likelihood, parts, pixels(images[rows])[:, None])  # [n, k]
        reconstruction[rows] = -log_p_x.mean(axis=1)
        if log_std is not None:
            log_weights = log_p_x + log_ratio(eps, latents, log_std[rows])
            for j in ks:
                bounds[j][rows] = log_mean_exp(log_weights[:, :j])
    kl = posterior.kl() if log_std is not None else np.zeros(posterior.mean.shape)
    return MeasuredTerms(reconstruction, kl, bounds, posterior, squared_error(graphs, images, posterior.mean))


def squared_error(graphs: OfflineGraphs, images: Pixels, latents: Floats) -> Doubles:
    """Mean squared error `[N]`, over pixels in [0, 1], between images and their decoded latents."""
    difference = pixels(images) - pixels(graphs.decode(latents))
    return np.asarray(np.square(difference).mean(axis=1, dtype=np.float64))


def pixels(images: Pixels) -> Floats:
    """Images `[N, C, H, W]` as `[N, C * H * W]` in [0, 1]."""
    values = images.reshape(len(images), -1).astype(np.float32)
    values /= 255
    return values


def metric_table(metrics: dict[str, Any], manifest: Manifest) -> Table:
    """The card's metrics as a table for a terminal."""
    table = Table("metric", "value", "measured on", title=f"{manifest.name} {manifest.version}, nats an image")
    for row in metric_rows(metrics, manifest):
        table.add_row(*row)
    return table


def _chunks(count: int, size: int, progress: Progress, name: str) -> Iterator[slice]:
    """Yield slices of at most `size` rows, and show the progress."""
    task = progress.add_task(name, total=count)
    for start in range(0, count, size):
        rows = slice(start, min(start + size, count))
        yield rows
        progress.update(task, completed=rows.stop)


def _rounded(value: float, digits: int = 4) -> float:
    return round(float(value), digits)
