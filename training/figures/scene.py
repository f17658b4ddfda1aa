"""The data of one bundle's figures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.bundle import files as bundle
from app.bundle.directory import find_bundles
from app.bundle.manifest import Manifest
from app.errors import BundleError
from app.maths.gaussian import Floats, Mixture, Posterior
from training.bundling.record import read_log, read_recipe
from training.data import Split, load_dataset, read_options
from training.data.subjects import subject_of
from training.offline import OfflineGraphs

MAX_IMAGES = 10_000
"""Maximum number of encoded test images: more points would only cover each other."""


@dataclass(frozen=True)
class Scene:
    """A bundle, its encodings of the test images, and the log of its training."""

    graphs: OfflineGraphs
    test: Split
    posterior: Posterior
    """Posterior of the test images."""
    kl: Floats
    """KL `[d]` of each latent dimension in nats; without a posterior, its variance instead."""
    variance: Floats
    """Variance `[d]` of the posterior means in each latent dimension."""
    log: dict[str, list[float]]
    """Columns of training.csv, by name."""
    mixture: Mixture | None
    """The aggregated posterior, if the bundle has it."""
    contrast: Floats | None
    """Encodings `[N, d]` of the same images by a plain autoencoder, if the recipe names one."""

    @property
    def manifest(self) -> Manifest:
        return self.graphs.manifest

    @property
    def order(self) -> list[int]:
        """The dimensions in order of decreasing KL."""
        return [int(i) for i in np.argsort(-self.kl, kind="stable")]

    @property
    def dims(self) -> list[int]:
        """The two dimensions of highest KL, in ascending order of their numbers."""
        return sorted(self.order[:2])

    @property
    def class_names(self) -> list[str]:
        """Names of the test images' labels, in ascending order; empty without labels."""
        if self.test.labels is None:
            return []
        return [self.name_of(int(label)) for label in np.unique(self.test.labels)]

    def name_of(self, label: int) -> str:
        """A label's name, or its number if the data set has no names."""
        names = self.manifest.classes or subject_of(self.manifest.training.dataset).classes
        return names[label] if label < len(names) else str(label)

    def examples(self, count: int) -> list[int]:
        """Rows of at most `count` test images: the first of each class, then the second of each, and so on."""
        labels = self.test.labels
        if labels is None:
            return list(range(min(count, len(self.test.images))))
        turns = np.empty(len(labels), np.int64)
        for label in np.unique(labels):
            turns[labels == label] = np.arange((labels == label).sum())
        return [int(row) for row in np.lexsort((labels, turns))[:count]]

    @property
    def specimen(self) -> int:
        """Row of the test image that is shown alone; for digits, a 2."""
        return self.examples(3)[-1]


def load_scene(directory: Path, *, data_dir: Path, models: Path) -> Scene:
    """Read a bundle and encode the test images."""
    read = bundle.read_bundle(directory)
    log, other = read_log(directory / "training.csv"), contrast_directory(directory, models)
    graphs = OfflineGraphs(read)
    test = load_dataset(read_options(directory), data_dir).test[:MAX_IMAGES]
    posterior = graphs.encode(test.images)
    contrast = OfflineGraphs(bundle.read_bundle(other)).encode(test.images).mean if other else None
    if contrast is not None and contrast.shape != posterior.mean.shape:
        raise BundleError(f"{other} has another number of latent dimensions than the bundle to compare it with")
    variance = _measured(graphs, "variance_per_dimension", posterior.mean.var(axis=0))
    kl = _measured(graphs, "kl_per_dimension", posterior.kl().mean(axis=0)) if graphs.manifest.stochastic else variance
    return Scene(graphs, test, posterior, kl, variance, log, Mixture.of(read.arrays), contrast)


def _measured(graphs: OfflineGraphs, name: str, otherwise: Floats) -> Floats:
    """A metric of the manifest, or before an evaluation `otherwise`, computed from unbinarized test images."""
    return np.asarray(graphs.manifest.metrics.get(name, otherwise), np.float32)


def contrast_directory(directory: Path, models: Path) -> Path | None:
    """The newest version of the autoencoder that the bundle's recipe names for contrast; None if it names none.

    Raises:
        BundleError: the named autoencoder has no version, or the bundle has no recipe.
    """
    name: str | None = read_recipe(directory).get("figures", {}).get("contrast")
    if name is None:
        return None
    versions = find_bundles(models, [name])
    if not versions:
        raise BundleError(f"{models / name} holds no version of the autoencoder to contrast with: export it first")
    return versions[max(versions)]
