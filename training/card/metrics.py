"""The table of metrics: name, value with its unit, and what it was measured on."""

from collections.abc import Iterator
from typing import Any

from app.bundle.manifest import Manifest
from training.card.subjects import subject_of

Row = tuple[str, str, str]


def metric_rows(metrics: dict[str, Any], manifest: Manifest) -> list[Row]:
    """Name, value with its unit, and what it was measured on, of every scalar metric in `metrics`."""
    if not metrics:
        return []
    table = _MetricTable(metrics, manifest)
    return list(table.variational() if manifest.stochastic else table.plain())


class _MetricTable:
    """The rows of one bundle. A row whose metric is absent is left out."""

    def __init__(self, metrics: dict[str, Any], manifest: Manifest) -> None:
        self.metrics, self.manifest = metrics, manifest
        self.data = kind_of_pixels(metrics, manifest)
        self.test = f"{self.data}, {metrics.get('split', 'test')}" + self._count("images", "{:,} images")
        self.train = f"{self.data}, train" + self._count("train_images", "first {:,} images")
        self.draws = self.test + self._count("k", "k = {}")
        self.train_draws = self.train + self._count("train_k", "k = {}")

    def variational(self) -> Iterator[Row]:
        """Rows of a model with a posterior."""
        density = "; of a density, so it can be negative" if self.manifest.likelihood == "gaussian" else ""
        yield from self._nats("NLL", "nll", f"{self.draws}{self._bound('k')}{density}", "nll_standard_error")
        yield from self._tight()
        yield from self._bits()
        average = "reconstruction averaged over the draws, plus KL"
        yield from self._nats("-ELBO", "negative_elbo", f"{self.draws}: {average}")
        yield from self._nats("Reconstruction", "reconstruction", self.draws)
        yield from self._nats("KL", "kl", f"{self.test}, in closed form")
        yield from self._active()
        yield from self._squared_error("posterior mean")
        yield from self._gap("held-out draws from the posteriors")
        yield from self._nats("-ELBO, training split", "train_negative_elbo", self.train_draws)
        yield from self._nats("NLL, training split", "train_nll", f"{self.train_draws}{self._bound('train_k')}")
        if "train_k" in self.metrics:
            k = self._count("train_k", "k = {}")
            yield from self._nats(f"NLL{k}", "nll_at_train_k", f"{self.test}{k}: to compare with the training split")

    def plain(self) -> Iterator[Row]:
        """Rows of a plain autoencoder. The reconstruction of gray values under a Bernoulli is not a likelihood."""
        note = "; cross entropy with grey values, no likelihood" if self._is_grey_cross_entropy() else ""
        yield from self._nats("Reconstruction", "reconstruction", self.test + note)
        yield from self._nats("Reconstruction, training split", "train_reconstruction", self.train + note)
        yield from self._squared_error("encoding")
        yield from self._gap("held-out encodings")

    def _nats(self, name: str, key: str, measured_on: str, error: str | None = None) -> Iterator[Row]:
        if key in self.metrics:
            spread = f" ± {self.metrics[error]:.2f}" if error in self.metrics else ""
            yield name, f"{self.metrics[key]:.2f}{spread} nats", measured_on

    def _tight(self) -> Iterator[Row]:
        tight = self.metrics.get("tight")
        if tight:
            k, split = tight["k"], self.metrics.get("split", "test")
            on = f"{self.data}, {split}, first {tight['images']:,} images, k = {k}: the IWAE-{k} bound, of these alone"
            yield f"NLL, k = {k}", f"{tight['nll']:.2f} ± {tight['nll_standard_error']:.2f} nats", on

    def _bits(self) -> Iterator[Row]:
        if "bits_per_dimension" in self.metrics:
            value = f"{self.metrics['bits_per_dimension']:.3f} bits"
            yield "Bits per dimension", value, f"{self.draws}: the NLL, a dimension of the image"

    def _active(self) -> Iterator[Row]:
        if "active_units" in self.metrics:
            value = f"{self.metrics['active_units']} of {self.manifest.latent.shape[0]}"
            yield "Active units", value, f"{self.test}: variance of means > 0.01"

    def _squared_error(self, latent: str) -> Iterator[Row]:
        if "mean_squared_error" in self.metrics:
            value = f"{self.metrics['mean_squared_error']:.4f} a pixel"
            on = f"{self.test}: pixels in [0, 1], the {latent} decoded against the image given"
            yield "Reconstruction error (MSE)", value, on

    def _gap(self, latents: str) -> Iterator[Row]:
        on = f"{self.test}: at least this KL from N(0, I), by the bundle's mixture on {latents}"
        yield from self._nats("Aggregated posterior to prior", "aggregate_gap", on)

    def _bound(self, key: str) -> str:
        return f": the IWAE-{self.metrics[key]} bound" if key in self.metrics else ""

    def _count(self, key: str, text: str) -> str:
        return f", {text.format(self.metrics[key])}" if key in self.metrics else ""

    def _is_grey_cross_entropy(self) -> bool:
        return self.manifest.likelihood == "bernoulli" and self.metrics.get("binarization", "none") == "none"


def kind_of_pixels(metrics: dict[str, Any], manifest: Manifest) -> str:
    """The data set and the kind of its pixels: nats of different kinds cannot be compared."""
    title = subject_of(manifest.training.dataset).title
    binarization = metrics.get("binarization", manifest.training.binarization)
    if binarization != "none":
        return f"{binarization}ally binarized {title}"
    colour = "grey" if manifest.image.channels == 1 else "colour"
    if manifest.likelihood == "gaussian":
        return f"{colour} {title} in [0, 1], Gaussian density"
    return f"8-bit {colour} {title}" if manifest.likelihood == "discretized_logistic" else f"{colour} {title}"
