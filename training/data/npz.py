"""Arrays in one `.npz` file as a data set."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import BLACK, SIDE, DatasetOptions, Fraction, RelativePath, Split
from training.errors import DataError

NAMES = ("train_images", "train_labels", "test_images", "test_labels")


class NpzOptions(DatasetOptions):
    """Arrays of one file: `train_images`, and optionally `test_images`, `train_labels` and `test_labels`.

    Images are uint8, or floats from 0 to 1, which are rounded to 256 levels: `[N, H, W]`, `[N, H, W, 1]` or
    `[N, H, W, 3]`, with H = W a multiple of 4. Labels are integers from 0 to 255, `[N]`.
    """

    background: ClassVar = BLACK
    resampling: ClassVar = "lanczos"
    dataset: Literal["npz"]
    path: RelativePath
    """Path of the file, relative to the data directory."""
    test_fraction: Fraction = 0.1
    """Fraction of the images, from the end, that are the test split if the file has no `test_images`."""

    @property
    def key(self) -> str:
        """Name of the data set in manifests."""
        return f"npz:{self.path}"


def read(options: NpzOptions, data_dir: Path) -> tuple[Split, Split]:
    """Read the training and the test split of the file. Either may be empty.

    Raises:
        DataError: the file is missing or unreadable, or an array is malformed.
    """
    path = data_dir / options.path
    arrays = _load(path)
    if "train_images" not in arrays:
        raise DataError(f"{path} has no array train_images")
    train = _split(arrays, "train", path)
    if "test_images" in arrays:
        test = _split(arrays, "test", path)
        if test.images.shape[1:] != train.images.shape[1:]:
            raise DataError(f"{path}: test_images are of another shape than train_images")
        return train, test
    if "test_labels" in arrays:
        raise DataError(f"{path} has test_labels without test_images")
    kept = len(train.images) - round(len(train.images) * options.test_fraction)
    return train[:kept], train[kept:]


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of the file that have one of NAMES."""
    if not path.is_file():
        raise DataError(f"{path} is absent, or is not a file")
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in NAMES if name in file}
    except Exception as error:  # numpy's and zipfile's parsers raise many types
        raise DataError(f"{path} cannot be read as .npz: {error}") from error


def _split(arrays: dict[str, NDArray[Any]], split: str, path: Path) -> Split:
    images = _images(arrays[f"{split}_images"], f"{path}: {split}_images")
    labels = arrays.get(f"{split}_labels")
    return Split(images, None if labels is None else _labels(labels, len(images), f"{path}: {split}_labels"))


def _images(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """An array of images as uint8 `[N, C, H, W]`."""
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[3] not in (1, 3):
        raise DataError(f"{where} has shape {list(array.shape)}; images are [N, H, W], [N, H, W, 1] or [N, H, W, 3]")
    height, width = array.shape[1:3]
    if height != width or height == 0 or height % SIDE:
        raise DataError(f"{where} are {height} x {width}; the nets need squares whose side is a multiple of {SIDE}")
    return np.ascontiguousarray(to_levels(array, where).transpose(0, 3, 1, 2))


def to_levels(array: NDArray[Any], where: str) -> NDArray[np.uint8]:
    """Images as uint8; floats from 0 to 1 are rounded to 256 levels.

    Raises:
        DataError: they are of another type; the message begins with `where`.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f" and ((array >= 0) & (array <= 1)).all():
        return np.rint(array * np.float32(255)).astype(np.uint8)
    raise DataError(f"{where} is {array.dtype}; images are uint8, or floats that are all from 0 to 1")


def _labels(array: NDArray[Any], count: int, where: str) -> NDArray[np.uint8]:
    if array.shape != (count,):
        raise DataError(f"{where} has shape {list(array.shape)}; {count} images have labels of shape [{count}]")
    if array.dtype.kind not in "iu" or ((array < 0) | (array > 255)).any():
        raise DataError(f"{where} is {array.dtype}; labels are integers from 0 to 255")
    return array.astype(np.uint8)
