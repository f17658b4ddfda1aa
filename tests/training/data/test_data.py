"""The data table of a recipe: its kinds, what is refused, and what holds for every data set."""

import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from training.data import READERS, DataOptions, Split, folder, idx, load_dataset, npz, read_options
from training.errors import DataError, RecipeError
from training.recipe import load_recipe

RECIPE = """
name = "pictures"
version = 1
description = "A folder."
latent = 2
[architecture]
name = "article"
[data]
"""
FOLDER = 'dataset = "folder"\npath = "faces/aligned"\nsize = 32\n'
NPZ = 'dataset = "npz"\npath = "faces.npz"\n'
IDX = 'dataset = "kmnist"\n'


def write(tmp_path: Path, table: str) -> str:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE + table)
    return str(path)


def test_a_recipe_names_a_folder(tmp_path: Path) -> None:
    data = load_recipe(write(tmp_path, FOLDER + 'mode = "L"\ntest_fraction = 0.2\nvalidation = 100')).data
    assert data == folder.FolderOptions(
        dataset="folder", path="faces/aligned", size=32, mode="L", test_fraction=0.2, validation=100
    )
    assert load_recipe(write(tmp_path, FOLDER)).data.mode == "RGB"


def test_a_recipe_names_a_file_of_arrays_or_an_idx_set(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, NPZ)).data == npz.NpzOptions(dataset="npz", path="faces.npz")
    assert load_recipe(write(tmp_path, IDX)).data == idx.IdxOptions(dataset="kmnist")


@pytest.mark.parametrize("table", [FOLDER, NPZ, IDX])
def test_a_recipe_survives_its_own_dump(tmp_path: Path, table: str) -> None:
    recipe = load_recipe(write(tmp_path, table))
    assert type(recipe).model_validate(recipe.model_dump(mode="json")) == recipe


def test_every_kind_has_a_reader() -> None:
    kinds = get_args(get_args(DataOptions)[0])
    names = [name for kind in kinds for name in get_args(kind.model_fields["dataset"].annotation)]
    assert sorted(names) == sorted(READERS)


# A table, and the key that the message must name.
WRONG = {
    "unknown kind": ('dataset = "imagenet"', "data"),
    "no kind": ("validation = 3", "data"),
    "unknown key": (FOLDER + "colour = 1", "data.folder.colour"),
    "a key of another kind": (NPZ + "size = 32", "data.npz.size"),
    "a path for an idx set": (IDX + 'path = "a"', "data.kmnist.path"),
    "no path": ('dataset = "npz"', "data.npz.path"),
    "no size": ('dataset = "folder"\npath = "a"', "data.folder.size"),
    "a number for a path": (NPZ.replace('"faces.npz"', "3"), "data.npz.path"),
    "a list for a path": (FOLDER.replace('"faces/aligned"', '["a"]'), "data.folder.path"),
    "text for a size": (FOLDER.replace("32", '"32"'), "data.folder.size"),
    "a float for a size": (FOLDER.replace("32", "32.0"), "data.folder.size"),
    "a small size": (FOLDER.replace("32", "4"), "data.folder.size"),
    "a huge size": (FOLDER.replace("32", "1028"), "data.folder.size"),
    "no multiple of 4": (FOLDER.replace("32", "30"), "data.folder.size"),
    "another mode": (FOLDER + 'mode = "CMYK"', "data.folder.mode"),
    "no test images": (FOLDER + "test_fraction = 0.0", "data.folder.test_fraction"),
    "nothing but test images": (NPZ + "test_fraction = 1.0", "data.npz.test_fraction"),
    "a fraction that is no number": (NPZ + "test_fraction = nan", "data.npz.test_fraction"),
    "text for a fraction": (NPZ + 'test_fraction = "0.1"', "data.npz.test_fraction"),
    "a negative validation": (FOLDER + "validation = -1", "data.folder.validation"),
}


@pytest.mark.parametrize(("table", "key"), WRONG.values(), ids=WRONG)
def test_a_wrong_table_is_refused_by_its_key(tmp_path: Path, table: str, key: str) -> None:
    with pytest.raises(RecipeError, match=rf"\b{re.escape(key)}: "):
        load_recipe(write(tmp_path, table))


ABSOLUTE = ["/", "/etc", "//etc"]
OUTSIDE = ["..", "../a", "a/..", "a/../b", "a/../../b"]
OTHERWISE_SPELT = ["", ".", "./a", "a/", "a//b", "a/./b", "a\\u0000b", "a\\nb"]


@pytest.mark.parametrize("path", [*ABSOLUTE, *OUTSIDE, *OTHERWISE_SPELT])
@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_a_path_stays_below_the_data_directory_and_has_one_spelling(tmp_path: Path, kind: str, path: str) -> None:
    table = f'dataset = "{kind}"\npath = "{path}"\n' + ("size = 32" if kind == "folder" else "")
    with pytest.raises(RecipeError, match=rf"data\.{kind}\.path: .*below the data directory"):
        load_recipe(write(tmp_path, table))


@pytest.mark.parametrize("path", ["a", "a/b", "a b/c.d", "...", "..a", "übung/é", "a.npz"])
def test_a_plain_path_is_taken(path: str) -> None:
    assert npz.NpzOptions(dataset="npz", path=path).key == f"npz:{path}"


# What holds for every data set.


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    images = np.arange(10, dtype=np.uint8).repeat(64).reshape(10, 8, 8)
    np.savez(tmp_path / "faces.npz", train_images=images, test_images=images[:3], train_labels=np.arange(10))
    return tmp_path


def test_the_last_training_images_are_set_aside(arrays: Path) -> None:
    dataset = load_dataset(npz.NpzOptions(dataset="npz", path="faces.npz", validation=4), arrays)
    assert dataset.train.images[:, 0, 0, 0].tolist() == list(range(6))
    assert dataset.validation.images[:, 0, 0, 0].tolist() == list(range(6, 10))
    assert dataset.train.labels is not None
    assert dataset.validation.labels is not None
    assert dataset.train.labels.tolist() == list(range(6))
    assert dataset.validation.labels.tolist() == list(range(6, 10))
    assert dataset.image_shape == (1, 8, 8)


@pytest.mark.parametrize("validation", [10, 11])
def test_some_training_images_must_be_left(arrays: Path, validation: int) -> None:
    with pytest.raises(DataError, match=f"validation = {validation} leaves none of 10 images"):
        load_dataset(npz.NpzOptions(dataset="npz", path="faces.npz", validation=validation), arrays)


@pytest.mark.parametrize("wrong", ["training", "test"])
def test_every_image_has_its_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    images, labels = np.zeros((5, 1, 8, 8), np.uint8), np.zeros(5, np.uint8)
    good, bad = Split(images, labels), Split(images, labels[:4])
    monkeypatch.setitem(READERS, "mnist", lambda *_: (bad, good) if wrong == "training" else (good, bad))
    with pytest.raises(DataError, match=f"the {wrong} split of MNIST has 5 images and 4 labels"):
        load_dataset(idx.IdxOptions(), tmp_path)


# The recipe beside a bundle.


@pytest.mark.parametrize("table", [FOLDER, NPZ, IDX])
def test_a_bundles_recipe_says_which_data_it_was_trained_on(tmp_path: Path, table: str) -> None:
    write(tmp_path, table)
    assert read_options(tmp_path) == load_recipe(str(tmp_path / "recipe.toml")).data


@pytest.mark.parametrize(
    "content",
    [None, b"", b"[data", b'data = "\xff"', b"data = 3", b'[data]\ndataset = "other"'],
    ids=["absent", "no table", "no TOML", "no text", "a number", "unknown"],
)
def test_a_recipe_that_does_not_say_is_a_data_error(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "recipe.toml").write_bytes(content)
    with pytest.raises(DataError, match=r"recipe\.toml does not say which data"):
        read_options(tmp_path)
