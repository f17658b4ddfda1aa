"""A tiny stand-in for MNIST, tiny recipes, and the bundles that they train to."""

import gzip
import hashlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from tests.conftest import Pixels
from training.bundling.export import export
from training.data.idx import NAMES, SOURCES, IdxFile, IdxSource
from training.evaluate import evaluate
from training.figures import figures
from training.fit.train import train
from training.recipe import Recipe, load_recipe

TRAIN_IMAGES = 300

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
[likelihood]
name = "grey_cross_entropy"
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
[likelihood]
name = "grey_cross_entropy"
[training]
epochs = 1
batch_size = 50
""",
    # Most of what a recipe can say.
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
name = "elbo"
kl_warmup_epochs = 1
[likelihood]
name = "bernoulli"
binarization = "dynamic"
[training]
epochs = 3
batch_size = 25
learning_rate = 1e-2
schedule = "cosine"
learning_rate_warmup_steps = 4
gradient_clip = 100.0
gradient_skip = 1e6
ema_decay = 0.9
""",
}
MORE = {
    # What those leave out, on the same digits from a file of one's own.
    "tiny-iwae": """
name = "tiny-iwae"
version = 1
description = "Three draws an image, 8-bit pixels, dropout."
seed = 5
latent = 3
[data]
dataset = "npz"
path = "tiny.npz"
[architecture]
name = "mlp"
width = 16
depth = 1
dropout = 0.1
[objective]
name = "iwae"
k = 3
[likelihood]
name = "discretized_logistic"
[training]
epochs = 3
batch_size = 50
optimizer = "adamw"
weight_decay = 0.01
learning_rate = 1e-2
""",
    "tiny-early": """
name = "tiny-early"
version = 1
description = "Stops early. The scale of a pixel is learned."
seed = 6
latent = 3
[data]
dataset = "npz"
path = "tiny.npz"
validation = 50
[architecture]
name = "mlp"
width = 16
depth = 1
[objective]
name = "elbo"
[likelihood]
name = "gaussian"
scale = "learned"
[training]
epochs = 50
batch_size = 25
learning_rate = 1e-2
early_stopping_epochs = 2
ema_decay = 0.5
""",
}


def idx(array: NDArray[np.uint8]) -> bytes:
    """An array as an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def source_of(folder: Path, mirrors: tuple[str, ...] = ()) -> IdxSource:
    """The source of the four files in `folder`, with their hashes; out of reach of any network."""
    files = []
    for name in NAMES:
        content = gzip.decompress((folder / f"{name}.gz").read_bytes())
        files.append(IdxFile(name, hashlib.sha256(content).hexdigest()))
    return IdxSource(mirrors, tuple(files))


def write_recipe(folder: Path, name: str, text: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toml"
    path.write_text((TINY | MORE)[name] if text is None else text)
    return path


def tiny_recipe(tmp_path: Path, name: str, /, **changes: Any) -> Recipe:
    """A tiny recipe, with other values for some of its tables' keys: `training={"epochs": 1}`.

    A table with a `name` takes the place of the whole table.
    """
    values = load_recipe(str(write_recipe(tmp_path, name))).model_dump(mode="json")
    for key, value in changes.items():
        values[key] = values[key] | value if isinstance(value, dict) and "name" not in value else value
    return Recipe.model_validate(values)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """As other processes are started with: the nets are too small for two, and numbers depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(threads)


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
    """A data directory whose `mnist` has 300 training and 100 test digits, which is what `mnist` now means.

    The same digits lie there as `tiny.npz`, for other processes, to which `mnist` means what it does.
    """
    folder = tmp_path_factory.mktemp("data") / "mnist"
    folder.mkdir()
    train, test = slice(None, TRAIN_IMAGES), slice(TRAIN_IMAGES, None)
    for name, array in zip(NAMES, (digits[train], labels[train], digits[test], labels[test]), strict=True):
        (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    arrays = {"train_images": digits[train], "train_labels": labels[train]}
    np.savez(folder.parent / "tiny.npz", **arrays, test_images=digits[test], test_labels=labels[test])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SOURCES, "mnist", source_of(folder))
        yield folder.parent


def train_all(folder: Path, names: Iterable[str], data_dir: Path) -> Workshop:
    recipes = {name: load_recipe(str(write_recipe(folder, name))) for name in names}
    for recipe in recipes.values():
        train(recipe, data_dir=data_dir, runs=folder / "runs")
    return Workshop(data_dir, recipes, folder / "runs", folder / "models")


def export_all(workshop: Workshop) -> Workshop:
    for recipe in workshop.recipes.values():
        export(recipe, runs=workshop.runs, models=workshop.models, data_dir=workshop.data_dir)
    return workshop


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Workshop:
    """The tiny recipes, trained. Read it only."""
    return train_all(tmp_path_factory.mktemp("trained"), TINY, data_dir)


@pytest.fixture(scope="session")
def trained_more(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Workshop:
    """The recipes of MORE, trained. Read it only."""
    return train_all(tmp_path_factory.mktemp("more"), MORE, data_dir)


@pytest.fixture(scope="session")
def exported(trained: Workshop) -> Workshop:
    """The tiny recipes, exported, as yet without metrics and figures. Read it only."""
    return export_all(trained)


@pytest.fixture(scope="session")
def exported_more(trained_more: Workshop) -> Workshop:
    """The recipes of MORE, exported. Read it only."""
    return export_all(trained_more)


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
