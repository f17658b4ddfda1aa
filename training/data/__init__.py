"""Kinds of data sets: one file each, and one table. Needs no torch.

A kind has a class of options, which is a table of the recipe, and `read(options, data_dir)`, which returns the training
and the test split.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from app.errors import BundleError
from training.bundling.record import read_recipe
from training.data import emoji, faces, folder, idx, npz
from training.data.dataset import Dataset, Split
from training.errors import DataError

__all__ = ["DataOptions", "Dataset", "Split", "check_labels", "load_dataset", "read_options"]

DataOptions = Annotated[
    idx.IdxOptions | emoji.EmojiOptions | faces.FacesOptions | folder.FolderOptions | npz.NpzOptions,
    Field(discriminator="dataset"),
]

READERS: dict[str, Callable[[Any, Path], tuple[Split, Split]]] = {
    "mnist": idx.read,
    "fashion-mnist": idx.read,
    "kmnist": idx.read,
    "emoji": emoji.read,
    "faces": faces.read,
    "folder": folder.read,
    "npz": npz.read,
}


def load_dataset(options: DataOptions, data_dir: Path) -> Dataset:
    """Read a recipe's data set from `data_dir`, downloading it if it is missing and can be downloaded.

    Raises:
        DataError: the data set is missing or malformed, or a split has no images.
    """
    train, test = READERS[options.dataset](options, data_dir)
    for name, split in {"training": train, "test": test}.items():
        count = len(split.images)
        if not count:
            raise DataError(f"the {name} split of {options.title} has no images")
        if split.labels is not None and len(split.labels) != count:
            raise DataError(f"the {name} split of {options.title} has {count} images and {len(split.labels)} labels")
    kept = len(train.images) - options.validation
    if kept <= 0:
        raise DataError(f"validation = {options.validation} leaves none of {len(train.images)} images to train on")
    return Dataset(train[:kept], train[kept:], test)


def check_labels(dataset: Dataset, title: str) -> None:
    """Check that every label from 0 to the maximum has training images: a bundle's arrays by label have no gaps.

    Raises:
        DataError: a label has no training images.
    """
    if dataset.train.labels is None:
        return
    labels = [split.labels for split in (dataset.train, dataset.validation, dataset.test) if split.labels is not None]
    missing = sorted(
        set(range(1 + max(int(part.max(initial=0)) for part in labels))) - set(dataset.train.labels.tolist())
    )
    if missing:
        classes = dataset.train.classes
        names = ", ".join(repr(classes[label]) if classes else str(label) for label in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError(f"{title} has no training images of class {names}{more}; labels are 0, 1, ... without gaps")


def read_options(directory: Path) -> DataOptions:
    """The data table of a bundle's `recipe.toml`.

    Raises:
        DataError: the bundle has no valid data table.
    """
    try:
        return TypeAdapter[DataOptions](DataOptions).validate_python(read_recipe(directory)["data"])
    except (BundleError, KeyError, ValidationError) as error:
        raise DataError(f"{directory / 'recipe.toml'} does not say which data the bundle was trained on") from error
