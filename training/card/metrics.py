"""The table of metrics: name, value with its unit, and what it was measured on."""

from collections.abc import Iterator
from typing import Any

from app.bundle.manifest import Manifest
from app.errors import BundleError
from training.data.subjects import subject_of

Row = tuple[str, str, str]


def metric_rows(metrics: dict[str, Any], manifest: Manifest) -> list[Row]:
    """Name, value with its unit, and what it was measured on, of every scalar metric in `metrics`.

    Raises:
        BundleError: an earlier version of `evaluate` measured them, and one is missing.
    """
    if not metrics:
        return []
    if missing := {"split", "images", "binarization", "train_images"} - metrics.keys():
        raise BundleError(f"the manifest has no metric {min(missing)}: python -m training evaluate measures them anew")
    data = kind_of_pixels(metrics, manifest)
    test = f"{data}, {metrics['split']}, {metrics['images']:,} images"
    train = f"{data}, train, first {metrics['train_images']:,} images"
    return list((_variational if manifest.stochastic else _plain)(metrics, manifest, test, train))


def _variational(metrics: dict[str, Any], manifest: Manifest, test: str, train: str) -> Iterator[Row]:
    """Rows of a model with a posterior."""
    k, train_k = metrics["k"], metrics["train_k"]
    draws, train_draws = f"{test}, k = {k}", f"{train}, k = {train_k}"
    density = "; of a density, so it can be negative" if manifest.likelihood == "gaussian" else ""
    yield "NLL", _nats(metrics["nll"], metrics["nll_standard_error"]), f"{draws}: the IWAE-{k} bound{density}"
    if "tight" in metrics:
        yield _tight(metrics, manifest)
    if "bits_per_dimension" in metrics:
        bits = f"{metrics['bits_per_dimension']:.3f} bits"
        yield "Bits per dimension", bits, f"{draws}: the NLL, a dimension of the image"
    average = "reconstruction averaged over the draws, plus KL"
    yield "-ELBO", _nats(metrics["negative_elbo"]), f"{draws}: {average}"
    yield "Reconstruction", _nats(metrics["reconstruction"]), draws
    yield "KL", _nats(metrics["kl"]), f"{test}, in closed form"
    active = f"{metrics['active_units']} of {manifest.latent.shape[0]}"
    yield "Active units", active, f"{test}: variance of means > 0.01"
    yield _squared_error(metrics, test, "posterior mean")
    yield from _gap(metrics, test, "held-out draws from the posteriors")
    yield "-ELBO, training split", _nats(metrics["train_negative_elbo"]), train_draws
    yield "NLL, training split", _nats(metrics["train_nll"]), f"{train_draws}: the IWAE-{train_k} bound"
    compared = f"{test}, k = {train_k}: to compare with the training split"
    yield f"NLL, k = {train_k}", _nats(metrics["nll_at_train_k"]), compared


def _plain(metrics: dict[str, Any], manifest: Manifest, test: str, train: str) -> Iterator[Row]:
    """Rows of a plain autoencoder. The reconstruction of gray values under a Bernoulli is not a likelihood."""
    is_grey = manifest.likelihood == "bernoulli" and metrics["binarization"] == "none"
    note = "; cross entropy with grey values, no likelihood" if is_grey else ""
    yield "Reconstruction", _nats(metrics["reconstruction"]), test + note
    yield "Reconstruction, training split", _nats(metrics["train_reconstruction"]), train + note
    yield _squared_error(metrics, test, "encoding")
    yield from _gap(metrics, test, "held-out encodings")


def _nats(value: float, error: float | None = None) -> str:
    return f"{value:.2f} nats" if error is None else f"{value:.2f} ± {error:.2f} nats"


def _tight(metrics: dict[str, Any], manifest: Manifest) -> Row:
    tight, data = metrics["tight"], kind_of_pixels(metrics, manifest)
    k = tight["k"]
    on = f"{data}, {metrics['split']}, first {tight['images']:,} images, k = {k}: the IWAE-{k} bound, of these alone"
    return f"NLL, k = {k}", _nats(tight["nll"], tight["nll_standard_error"]), on


def _squared_error(metrics: dict[str, Any], test: str, latent: str) -> Row:
    on = f"{test}: pixels in [0, 1], the {latent} decoded against the image given"
    return "Reconstruction error (MSE)", f"{metrics['mean_squared_error']:.4f} a pixel", on


def _gap(metrics: dict[str, Any], test: str, latents: str) -> Iterator[Row]:
    if "aggregate_gap" in metrics:
        on = f"{test}: at least this KL from N(0, I), by the bundle's mixture on {latents}"
        yield "Aggregated posterior to prior", _nats(metrics["aggregate_gap"]), on


def kind_of_pixels(metrics: dict[str, Any], manifest: Manifest) -> str:
    """The data set and the kind of its pixels: nats of different kinds cannot be compared."""
    title = subject_of(manifest.training.dataset).title
    if metrics["binarization"] != "none":
        return f"{metrics['binarization']}ally binarized {title}"
    colour = "grey" if manifest.image.channels == 1 else "colour"
    if manifest.likelihood == "gaussian":
        return f"{colour} {title} in [0, 1], Gaussian density"
    return f"8-bit {colour} {title}" if manifest.likelihood == "discretized_logistic" else f"{colour} {title}"
