"""The data set of faces: drawn once, checked at each use, split by shapes, with every option as a label."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from training.data import Split, load_dataset
from training.data.faces import FacesOptions, read
from training.data.faces.choices import CLASSES, COLORS, SHAPES, choose, labels_of, to_lines
from training.data.faces.drawing import draw
from training.errors import DataError


def options(**changes: Any) -> FacesOptions:
    return FacesOptions.model_validate({"dataset": "faces", "count": 900, "size": 16, "test_fraction": 0.3, **changes})


@pytest.fixture
def splits(tmp_path: Path, drawn_by_fakes: Path) -> tuple[Split, Split]:
    return read(options(), tmp_path)


def combinations(split: Split) -> list[tuple[str, ...]]:
    return list(zip(*(split.attributes[name].tolist() for name in SHAPES), strict=True))


def arrays_of(data_dir: Path) -> Path:
    (path,) = (data_dir / "faces").glob("*.npz")
    return path


def test_every_face_is_in_one_split_with_its_options(splits: tuple[Split, Split]) -> None:
    chosen = choose(900, 0)
    for name in (*SHAPES, *COLORS):
        found = np.concatenate([split.attributes[name] for split in splits])
        assert sorted(map(str, found.tolist())) == sorted(map(str, chosen[name].tolist()))
    for split in splits:
        assert split.images.shape == (len(split.images), 3, 16, 16)
        assert split.labels is not None
        assert np.array_equal(split.labels, labels_of(split.attributes))
        assert split.classes == CLASSES
    assert 180 < len(splits[1].images) < 360


def test_no_two_splits_share_a_combination_of_shapes(tmp_path: Path, drawn_by_fakes: Path) -> None:
    dataset = load_dataset(options(validation=100), tmp_path)
    train, validation, test = (set(combinations(split)) for split in (dataset.train, dataset.validation, dataset.test))
    assert not train & test
    assert not validation & test
    assert len(train & validation) <= 1, "faces of the same shapes follow one another"
    assert len(dataset.validation.attributes["hair"]) == 100


def test_a_row_of_options_is_that_of_the_image(tmp_path: Path, node_folder: Path) -> None:
    """So that the faces can be drawn again, with other options."""
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "node").symlink_to(node_folder)
    train, _ = read(options(count=30), tmp_path)
    again = draw(to_lines(train.attributes), 16, "#ffffff", node_folder)
    assert np.array_equal(again.transpose(0, 3, 1, 2), train.images)
    assert (train.images[:, :, 0, 0] == 255).all()


def test_faces_are_drawn_once(
    tmp_path: Path, splits: tuple[Split, Split], drawn_by_fakes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    again = read(options(), tmp_path)
    for one, other in zip(splits, again, strict=True):
        assert np.array_equal(one.images, other.images)
    with pytest.raises(DataError, match=r"faces are drawn with Node\.js"):
        read(options(draw_seed=1), tmp_path)


@pytest.mark.usefixtures("splits")
def test_the_file_has_images_and_options(tmp_path: Path) -> None:
    with np.load(arrays_of(tmp_path)) as file:
        assert set(file) == {"images", "sha256", *SHAPES, *COLORS}
        assert file["images"].shape == (900, 16, 16, 3)
        assert {len(file[name]) for name in (*SHAPES, *COLORS)} == {900}


@pytest.mark.usefixtures("splits")
@pytest.mark.parametrize("damage", ["cut", "changed", "text"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = arrays_of(tmp_path)
    if damage == "changed":
        with np.load(path) as file:
            arrays = dict(file)
        arrays["images"][5, 3, 3] ^= 1
        np.savez(path, **arrays)
    else:
        path.write_bytes(path.read_bytes()[:-200] if damage == "cut" else b"hello")
    with pytest.raises(DataError, match=r"\.npz is damaged: remove it, and the faces are drawn again"):
        read(options(), tmp_path)


@pytest.mark.usefixtures("splits")
def test_a_recipe_refuses_other_images_than_it_names(tmp_path: Path) -> None:
    with np.load(arrays_of(tmp_path)) as file:
        digest = str(file["sha256"])
    read(options(sha256=digest), tmp_path)
    with pytest.raises(DataError, match=f"have the sha256 {digest}, and not the recipe's {'0' * 64}"):
        read(options(sha256="0" * 64), tmp_path)


@pytest.mark.parametrize("change", [{"size": 18}, {"size": 8}, {"count": 0}, {"draw_seed": -1}, {"sha256": "abc"}])
def test_wrong_options_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        options(**change)
