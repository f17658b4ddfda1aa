"""A bundle's figures: PNG files beside its manifest, drawn through its own graphs.

python -m training figures models/mnist/1
"""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from app import bundle, gaussian
from app.bundle import Manifest
from app.errors import BundleError
from app.gaussian import Floats, Posterior
from training.card import read_log, write_card
from training.data import Split, load_dataset
from training.graphs import Graphs
from training.plots import (
    DPI,
    MARK,
    PALETTE,
    STYLE,
    close_up,
    curves,
    ellipses,
    faint,
    legend,
    mosaic,
    name_axes,
    name_classes,
    picture,
    scatter,
    squares,
)

PAIRS = ((0, 6), (1, 7), (3, 8), (4, 9), (5, 2))
"""Digits that interpolation.png goes between."""
STEPS = 12
SEED = 0

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """What the figures of one bundle are drawn from."""

    graphs: Graphs
    test: Split
    posterior: Posterior
    """Of the test images."""
    kl: Floats
    """`[d]`: KL of each latent dimension; of an autoencoder without a posterior, the variance of each."""
    log: dict[str, list[float]]
    """Columns of training.csv."""
    contrast: Floats | None
    """Means of the same images in a plain autoencoder, `[N, d]`."""

    @property
    def manifest(self) -> Manifest:
        return self.graphs.manifest

    @property
    def dims(self) -> list[int]:
        """The two dimensions of highest KL, in ascending order of their numbers."""
        return sorted(int(i) for i in np.argsort(-self.kl, kind="stable")[:2])

    def first(self, label: int, which: int = 0) -> int:
        """Row of the first test image of a label, or of a later one."""
        return int(np.flatnonzero(self.test.labels == label)[which])


def figures(directory: Path, *, data_dir: Path, models: Path) -> list[Path]:
    """Draw the figures of the bundle in `directory` into it, and render its card anew; returns their paths.

    The autoencoder to contrast with, where the recipe names one, is its newest version in `models`.

    Raises:
        BundleError: this bundle or the autoencoder's cannot be read, or their latent spaces are not of one size.
        DataError: the data set cannot be had.
    """
    scene = load_scene(directory, data_dir=data_dir, models=models)
    drawings = choose(scene)
    with mpl.rc_context(STYLE):
        for name, draw in drawings.items():
            # matplotlib would write its version into the file.
            draw(scene).savefig(directory / name, dpi=DPI, metadata={"Software": None}, pil_kwargs={"optimize": True})
    write_card(directory)
    return [directory / name for name in drawings]


def load_scene(directory: Path, *, data_dir: Path, models: Path) -> Scene:
    """Read a bundle and encode the test images."""
    graphs = Graphs(bundle.read_bundle(directory))
    test = load_dataset(graphs.manifest.training.dataset, data_dir).test
    posterior = graphs.encode(test.images)
    measured = graphs.manifest.metrics.get("kl_per_dimension")
    if not graphs.manifest.stochastic:
        kl = posterior.mean.var(axis=0)
    else:
        kl = np.array(measured, np.float32) if measured else posterior.kl().mean(axis=0).astype(np.float32)
    other = contrast_directory(directory, models)
    contrast = Graphs(bundle.read_bundle(other)).encode(test.images).mean if other else None
    if contrast is not None and contrast.shape != posterior.mean.shape:
        raise BundleError(f"{other} has another number of latent dimensions than the bundle it is to contrast with")
    return Scene(graphs, test, posterior, kl, read_log(directory / "training.csv"), contrast)


def contrast_directory(directory: Path, models: Path) -> Path | None:
    """The newest version of the autoencoder that the bundle's recipe names for contrast; None if it names none.

    Raises:
        BundleError: it names one, and that isn't there; or there is no recipe.
    """
    path = directory / "recipe.toml"
    try:
        recipe = tomllib.loads(path.read_text())
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    name: str | None = recipe.get("figures", {}).get("contrast")
    if name is None:
        return None
    versions = [path for path in (models / name).glob("[1-9]*") if path.name.isdecimal()]
    if not versions:
        raise BundleError(f"{models / name} holds no version of the autoencoder to contrast with: export it first")
    return max(versions, key=_version)


def _version(path: Path) -> int:
    return int(path.name)


def choose(scene: Scene) -> dict[str, Callable[[Scene], Figure]]:
    """File name and drawing function of every figure that this kind of bundle has."""
    common: dict[str, Callable[[Scene], Figure]] = {
        "posterior.png": draw_posterior,
        "reconstructions.png": draw_reconstructions,
        "samples.png": draw_samples,
        "training.png": draw_training,
    }
    if not scene.manifest.stochastic:
        return common
    more = common | {
        "manifold.png": draw_manifold,
        "encoding.png": draw_encoding,
        "interpolation.png": draw_interpolation,
    }
    if scene.contrast is not None:
        more["contrast.png"] = draw_contrast
    if len(scene.kl) > 2:
        more["kl.png"] = draw_kl
    return more


def draw_samples(scene: Scene) -> Figure:
    """10 x 10 draws from N(0, I) at temperature 1, decoded."""
    latents = gaussian.sample_prior(SEED, 100, (len(scene.kl),))
    return picture(mosaic(scene.graphs.decode(latents), columns=10))[0]


def draw_reconstructions(scene: Scene) -> Figure:
    """Two test images of each class, each above its reconstruction."""
    blocks = []
    for which in range(2):
        rows = [scene.first(label, which) for label in range(10)]
        blocks += [scene.test.images[rows], scene.graphs.decode(scene.posterior.mean[rows])]
    tiles = mosaic(np.concatenate(blocks), columns=10)
    figure, axes = picture(tiles, left=90)
    places = np.linspace(0, len(tiles), 9)[1::2]
    axes.set_yticks(places, ["digit", "decoded"] * 2)
    return figure


def draw_interpolation(scene: Scene) -> Figure:
    """One row a pair of digits: the straight line between their posterior means, decoded."""
    ends = scene.posterior.mean[[[scene.first(label) for label in pair] for pair in PAIRS]]  # [pairs, 2, d]
    latents = np.concatenate([gaussian.interpolate(pair, STEPS, "lerp") for pair in ends])
    return picture(mosaic(scene.graphs.decode(latents), columns=STEPS))[0]


def draw_manifold(scene: Scene) -> Figure:
    """20 x 20 points of the plane, spaced evenly under the prior, the other dimensions at zero; decoded."""
    n = 20
    latents = np.zeros((n * n, len(scene.kl)), np.float32)
    latents[:, scene.dims] = gaussian.manifold_grid(n)
    tiles = mosaic(scene.graphs.decode(latents), columns=n, gap=0)
    figure, axes = picture(tiles, left=80, bottom=70)
    tile, values = len(tiles) / n, np.arange(-1.5, 2, 0.5)
    places = np.array([((NormalDist().cdf(value) - 0.05) / 0.9 * (n - 1) + 0.5) * tile for value in values])
    axes.set_xticks(places, map(str, values))
    axes.set_yticks(len(tiles) - places, map(str, values))
    name_axes(axes, scene.dims)
    return figure


def draw_posterior(scene: Scene) -> Figure:
    """Posterior means of the test images, by class."""
    figure, (axes,) = squares(4.4, right=1.4)
    show_classes(axes, scene.posterior.mean, scene)
    legend(figure)
    return figure


def draw_contrast(scene: Scene) -> Figure:
    """The same beside a plain autoencoder's."""
    assert scene.contrast is not None
    figure, (left, right) = squares(3.9, 3.9, right=1.4)
    show_classes(left, scene.contrast, scene)
    show_classes(right, scene.posterior.mean, scene)
    left.set_title("Autoencoder")
    right.set_title("Variational autoencoder")
    legend(figure)
    return figure


def show_classes(axes: Axes, means: Floats, scene: Scene) -> None:
    """Scatter the scene's plane of means `[N, d]`; where there is but this plane, name the classes in it."""
    points = means[:, scene.dims]
    scatter(axes, points, scene.test.labels)
    if means.shape[1] == 2:
        name_classes(axes, points, scene.test.labels)
    name_axes(axes, scene.dims)


def draw_encoding(scene: Scene) -> Figure:
    """One test image's encoding over the faint others: a point in the autoencoder, a distribution here."""
    assert scene.posterior.log_std is not None
    row, means = scene.first(2), scene.posterior.mean[:, scene.dims]
    mean, std = means[row], np.exp(scene.posterior.log_std[row, scene.dims])
    figure, axes = squares(1.4, *[3.4] * (1 if scene.contrast is None else 2))
    axes[0].imshow(scene.test.images[row, 0], cmap="gray", vmin=0, vmax=255)
    axes[0].set_axis_off()
    axes[0].set_title("Image")
    if scene.contrast is not None:
        faint(axes[1], scene.contrast[:, scene.dims])
        axes[1].plot(*scene.contrast[row, scene.dims], "o", color=MARK, markersize=5)
        axes[1].set_title("Autoencoder: a point")
    faint(axes[-1], means)
    ellipses(axes[-1], mean, std)
    close_up(axes[-1], mean, std)
    axes[-1].set_title("Variational autoencoder: a distribution")
    for plane in axes[1:]:
        name_axes(plane, scene.dims)
    return figure


def draw_kl(scene: Scene) -> Figure:
    """KL of each latent dimension, in descending order."""
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(scene.kl, kind="stable")[::-1]
    axes.bar(range(len(order)), scene.kl[order], color=PALETTE[0], width=0.75)
    axes.set_xticks(range(len(order)), map(str, order), fontsize=7)
    axes.set_xlabel("latent dimension")
    axes.set_ylabel("KL, nats an image")
    axes.margins(x=0.01)
    return figure


def draw_training(scene: Scene) -> Figure:
    """Loss terms over the epochs, on both splits."""
    kind = " (grey cross entropy)" if scene.manifest.training.binarization == "none" else ""
    terms = {"reconstruction": f"Reconstruction{kind}"}
    if scene.manifest.stochastic:
        terms |= {"kl": "KL", "negative_elbo": "Sum: the loss" if kind else "Negative ELBO"}
    figure = Figure(figsize=(1.2 + 3.1 * len(terms), 2.8), layout="constrained")
    for axes, (term, title) in zip(figure.subplots(1, len(terms), squeeze=False)[0], terms.items(), strict=True):
        curves(axes, scene.log, term)
        axes.set_title(title)
    figure.supylabel("nats an image", fontsize=9)
    return figure
