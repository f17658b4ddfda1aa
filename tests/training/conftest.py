"""A tiny stand-in for MNIST, tiny recipes, and the bundles that they train to."""

import gzip
import hashlib
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import Pixels
from training.data import SOURCES, IdxFile, IdxSource
from training.evaluate import evaluate
from training.export import export
from training.figures import figures
from training.recipe import Recipe, load_recipe
from training.train import train

TRAIN_IMAGES = 300
NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

TINY = {
    # A posterior in the plane, trained on grey values, to contrast with the autoencoder.
    "tiny-2d": """
name = "tiny-2d"
version = 2
description = "A posterior in the plane."
seed = 3
latent = 2
[architecture]
name = "article"
[objective]
reconstruction = "grey_cross_entropy"
[training]
epochs = 2
batch_size = 50
[figures]
contrast = "tiny-ae"
""",
    "tiny-ae": """
name = "tiny-ae"
version = 1
description = "A point in the plane."
latent = 2
[architecture]
name = "article"
[objective]
name = "autoencoder"
reconstruction = "grey_cross_entropy"
[training]
epochs = 1
batch_size = 50
""",
    # Every option that a recipe has.
    "tiny": """
name = "tiny"
version = 1
description = "More dimensions, binary pixels, averaged weights."
seed = 7
latent = 4
[architecture]
name = "residual"
width = 4
hidden = 16
[objective]
reconstruction = "bernoulli"
kl_warmup_epochs = 1
[training]
epochs = 3
batch_size = 25
learning_rate = 1e-2
schedule = "cosine"
learning_rate_warmup_steps = 4
gradient_clip = 100.0
ema_decay = 0.9
""",
}

# What Lightning says of such short runs, and of a folder that it goes on in.
LIGHTNING_SAYS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    "The number of training batches",
    "Checkpoint directory .* exists and is not empty",
    "Experiment logs directory .* exists and is not empty",
    "The dirpath has changed from",
)


@contextmanager
def lightning() -> Iterator[None]:
    """Everything but Lightning's own warnings stays an error."""
    with warnings.catch_warnings():
        for message in LIGHTNING_SAYS:
            warnings.filterwarnings("ignore", message)
        yield


def train_quietly(recipe: Recipe, **options: Any) -> Path:
    with lightning():
        return train(recipe, **options)


def idx(array: NDArray[np.uint8]) -> bytes:
    """An array as an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def source_of(folder: Path, mirrors: tuple[str, ...] = ()) -> IdxSource:
    """The source of the four files in `folder`, with their hashes; out of reach of any network."""
    files = []
    for name in NAMES:
        content = gzip.decompress((folder / f"{name}.gz").read_bytes())
        files.append(IdxFile(name, hashlib.sha256(content).hexdigest()))
    return IdxSource(mirrors, *files)


def write_recipe(folder: Path, name: str, text: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text(TINY[name] if text is None else text)
    return path


def tiny_recipe(tmp_path: Path, name: str, /, **changes: Any) -> Recipe:
    """A tiny recipe, with other values for some of its tables' keys: `training={"epochs": 1}`."""
    values = load_recipe(str(write_recipe(tmp_path, name))).model_dump(mode="json")
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(value, dict) else value
    return Recipe.model_validate(values)


@dataclass(frozen=True)
class Workshop:
    """Where everything tiny lies."""

    data_dir: Path
    recipes: dict[str, Recipe]
    runs: Path
    models: Path

    def bundle(self, name: str) -> Path:
        return self.models / name / str(self.recipes[name].version)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory, digits: Pixels, labels: Pixels) -> Iterator[Path]:
    """A data directory whose `mnist` has 300 training and 100 test digits, which is what `mnist` now means."""
    folder = tmp_path_factory.mktemp("data") / "mnist"
    folder.mkdir()
    train, test = slice(None, TRAIN_IMAGES), slice(TRAIN_IMAGES, None)
    for name, array in zip(NAMES, (digits[train], labels[train], digits[test], labels[test]), strict=True):
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SOURCES, "mnist", source_of(folder))
        yield folder.parent


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Workshop:
    """The tiny recipes, trained. Read it only."""
    folder = tmp_path_factory.mktemp("trained")
    recipes = {name: load_recipe(str(write_recipe(folder, name))) for name in TINY}
    for recipe in recipes.values():
        train_quietly(recipe, data_dir=data_dir, runs=folder / "runs")
    return Workshop(data_dir, recipes, folder / "runs", folder / "models")


@pytest.fixture(scope="session")
def exported(trained: Workshop) -> Workshop:
    """The same, exported, as yet without metrics and figures. Read it only."""
    for recipe in trained.recipes.values():
        export(recipe, runs=trained.runs, models=trained.models, data_dir=trained.data_dir)
    return trained


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, exported: Workshop) -> Workshop:
    """The same, evaluated with k = 3, and its figures drawn. Read it only."""
    models = tmp_path_factory.mktemp("finished") / "models"
    shutil.copytree(exported.models, models)
    workshop = Workshop(exported.data_dir, exported.recipes, exported.runs, models)
    for name in workshop.recipes:
        evaluate(workshop.bundle(name), data_dir=workshop.data_dir, k=3)
        figures(workshop.bundle(name), data_dir=workshop.data_dir, models=models)
    return workshop


def copy_of(workshop: Workshop, tmp_path: Path) -> Workshop:
    """A copy of a workshop's models, to change."""
    shutil.copytree(workshop.models, tmp_path / "models")
    return Workshop(workshop.data_dir, workshop.recipes, workshop.runs, tmp_path / "models")
