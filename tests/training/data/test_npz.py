"""Arrays of an `.npz` file: what is taken, what is refused by array and file."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data import load_dataset
from training.data.npz import NpzOptions, read
from training.errors import DataError

RANDOM = np.random.default_rng(0)
TRAIN = RANDOM.integers(0, 256, (20, 8, 8)).astype(np.uint8)
TEST = RANDOM.integers(0, 256, (5, 8, 8)).astype(np.uint8)
LABELS = RANDOM.integers(0, 10, 20)


def options(**changes: Any) -> NpzOptions:
    return NpzOptions.model_validate({"dataset": "npz", "path": "arrays.npz", **changes})


def write(tmp_path: Path, **arrays: Any) -> Path:
    np.savez(tmp_path / "arrays.npz", **arrays)
    return tmp_path


def test_both_splits_and_their_labels_are_read(tmp_path: Path) -> None:
    write(tmp_path, train_images=TRAIN, test_images=TEST, train_labels=LABELS, test_labels=LABELS[:5], other=TEST)
    train, test = read(options(), tmp_path)
    assert np.array_equal(train.images, TRAIN[:, None])
    assert np.array_equal(test.images, TEST[:, None])
    assert train.labels is not None
    assert test.labels is not None
    assert train.labels.dtype == np.uint8
    assert np.array_equal(train.labels, LABELS)
    assert np.array_equal(test.labels, LABELS[:5])


def test_a_compressed_file_is_read_too(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "arrays.npz", train_images=TRAIN, test_images=TEST)
    train, test = read(options(), tmp_path)
    assert train.labels is test.labels is None
    assert np.array_equal(train.images, TRAIN[:, None])


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_come_last_and_are_put_first(tmp_path: Path, channels: int) -> None:
    images = RANDOM.integers(0, 256, (6, 8, 8, channels)).astype(np.uint8)
    train, test = read(options(), write(tmp_path, train_images=images, test_images=images[:2]))
    assert np.array_equal(train.images, images.transpose(0, 3, 1, 2))
    assert train.images.flags.c_contiguous
    assert test.images.shape == (2, channels, 8, 8)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_are_rounded_to_their_levels(tmp_path: Path, dtype: Any) -> None:
    levels = np.arange(256).astype(np.uint8).reshape(4, 8, 8)
    train, _ = read(options(), write(tmp_path, train_images=(levels / 255).astype(dtype), test_images=TEST))
    assert train.images.dtype == np.uint8
    assert np.array_equal(train.images, levels[:, None])


def test_between_two_levels_the_nearer_is_taken(tmp_path: Path) -> None:
    images = np.full((2, 8, 8), 0.6 / 255)
    train, _ = read(options(), write(tmp_path, train_images=images, test_images=TEST))
    assert (train.images == 1).all()


@pytest.mark.parametrize(("fraction", "kept"), [(0.1, 18), (0.25, 15), (0.5, 10)])
def test_without_test_images_the_last_training_images_are_kept_for_it(
    tmp_path: Path, fraction: float, kept: int
) -> None:
    write(tmp_path, train_images=TRAIN, train_labels=LABELS)
    train, test = read(options(test_fraction=fraction), tmp_path)
    assert np.array_equal(train.images, TRAIN[:kept, None])
    assert np.array_equal(test.images, TRAIN[kept:, None])
    assert np.array_equal(train.labels, LABELS[:kept])
    assert np.array_equal(test.labels, LABELS[kept:])


@pytest.mark.parametrize(("count", "fraction", "split"), [(3, 0.1, "test"), (3, 0.9, "training"), (0, 0.1, "training")])
def test_neither_split_may_be_empty(tmp_path: Path, count: int, fraction: float, split: str) -> None:
    write(tmp_path, train_images=TRAIN[:count])
    with pytest.raises(DataError, match=f"the {split} split of arrays has no images"):
        load_dataset(options(test_fraction=fraction), tmp_path)


def with_nan() -> Any:
    images = np.zeros((2, 8, 8), np.float32)
    images[1, 2, 3] = np.nan
    return images


WRONG = {
    "no training images": ({"images": TRAIN}, "has no array train_images"),
    "integers that are no bytes": ({"train_images": TRAIN.astype(int)}, "train_images is int64; images are uint8"),
    "truths": ({"train_images": TRAIN > 9}, "train_images is bool"),
    "text": ({"train_images": np.full((2, 8, 8), "a")}, "train_images is <U1"),
    "complex": ({"train_images": TRAIN * 1j}, "train_images is complex128"),
    "floats up to 255": ({"train_images": TRAIN.astype(np.float32)}, "train_images is float32.*all from 0 to 1"),
    "floats from -1": ({"train_images": TRAIN / 255 - 0.1}, "train_images is float64.*all from 0 to 1"),
    "not a number": ({"train_images": with_nan()}, "train_images is float32.*all from 0 to 1"),
    "flat": ({"train_images": TRAIN.reshape(20, 64)}, r"train_images has shape \[20, 64\]"),
    "channels first": ({"train_images": np.zeros((2, 3, 8, 8), np.uint8)}, r"train_images has shape \[2, 3, 8, 8\]"),
    "a scalar": ({"train_images": np.uint8(1)}, r"train_images has shape \[\]"),
    "not square": ({"train_images": np.zeros((2, 8, 12), np.uint8)}, "train_images are 8 x 12"),
    "no multiple of 4": ({"train_images": np.zeros((2, 10, 10), np.uint8)}, "train_images are 10 x 10.*multiple of 4"),
    "no pixel": ({"train_images": np.zeros((2, 0, 0), np.uint8)}, "train_images are 0 x 0"),
    "wrong test images": ({"train_images": TRAIN, "test_images": TEST[:, :4]}, "test_images are 4 x 8"),
    "test images of another shape": (
        {"train_images": TRAIN, "test_images": TEST[:, :4, :4]},
        "test_images are of another shape than train_images",
    ),
    "too few labels": (
        {"train_images": TRAIN, "train_labels": LABELS[1:]},
        r"train_labels has shape \[19\]; 20 images",
    ),
    "one-hot labels": ({"train_images": TRAIN, "train_labels": np.eye(20, dtype=int)}, r"has shape \[20, 20\]"),
    "labels over 255": ({"train_images": TRAIN, "train_labels": LABELS + 250}, "train_labels is int64.*0 to 255"),
    "labels below 0": ({"train_images": TRAIN, "train_labels": LABELS - 10}, "train_labels is int64.*0 to 255"),
    "floats for labels": ({"train_images": TRAIN, "train_labels": LABELS / 1}, "train_labels is float64"),
    "too many test labels": (
        {"train_images": TRAIN, "test_images": TEST, "test_labels": LABELS},
        r"test_labels has shape \[20\]; 5 images",
    ),
    "test labels without images": (
        {"train_images": TRAIN, "test_labels": LABELS},
        "has test_labels without test_images",
    ),
    "pickled objects": ({"train_images": np.array([{}, None])}, "cannot be read as .npz"),
}


@pytest.mark.parametrize(("arrays", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_array_is_refused_by_file_and_name(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    write(tmp_path, **arrays)
    with pytest.raises(DataError, match=rf"arrays\.npz.*{message}"):
        read(options(), tmp_path)


def whole() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, train_images=TRAIN)
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, TRAIN)
    return buffer.getvalue()


def no_npy() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train_images.npy", b"\x93NUMPY\x01\x00\x04\x00junk")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", whole()[:-40], whole()[:300] + b"\xff" + whole()[301:], npy(), no_npy()],
    ids=["empty", "text", "truncated", "damaged", "one array", "no header"],
)
def test_what_is_no_npz_file_is_a_data_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "arrays.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"arrays\.npz cannot be read as \.npz"):
        read(options(), tmp_path)


def test_a_member_that_is_no_array_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "arrays.npz", "w") as archive:
        archive.writestr("train_images", b"hello")
    with pytest.raises(DataError, match=r"arrays\.npz.*train_images"):
        read(options(), tmp_path)


def test_a_file_that_is_not_there_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"arrays\.npz is absent"):
        read(options(), tmp_path)
    (tmp_path / "arrays.npz").mkdir()
    with pytest.raises(DataError, match=r"arrays\.npz is absent, or is not a file"):
        read(options(), tmp_path)


def test_key_and_title_come_from_the_path() -> None:
    assert options(path="faces/small.npz").key == "npz:faces/small.npz"
    assert options(path="faces/small.npz").title == "small"
