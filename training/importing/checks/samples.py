"""Images to test a model with: from a folder or a file, or synthetic ones."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.codecs.images import Resampling, read_images
from app.errors import InvalidInput
from app.maths.likelihood import Pixels
from training.data.folder import crop_to, list_images
from training.data.idx import parse_idx
from training.data.npz import to_levels
from training.errors import DataError, ImportRefused
from training.importing.checks.latents import SIDES, LatentInfo
from training.importing.options import Answers

MIN_IMAGES, MAX_IMAGES, MAX_SYNTHETIC_IMAGES = 8, 256, 64
"""Bounds of the number of images. Between them, the time budget of a check limits it."""
MAX_VALUES = 2**24
"""Maximum of pixels times channels, over all images."""
ARRAY_NAMES = ("test_images", "images", "x_test", "train_images")
"""Names of arrays to search an npz file for, in this order."""


@dataclass(frozen=True)
class SampleImages:
    """Images uint8 `[N, C, H, W]`, N at least 1, and their name on the card."""

    images: Pixels
    title: str
    are_real: bool
    """False for synthetic images, which say little about the model."""


def read_samples(path: Path | None, answers: Answers, latents: LatentInfo) -> SampleImages:
    """Read images of the model's size from a folder, an npz or an IDX file; synthesize some if `path` is None.

    Raises:
        DataError, ImportRefused: no image can be read, or the images have another size or type.
    """
    shape = answers.channels, answers.height or SIDES[0], answers.width or SIDES[0]
    maximum = max(MIN_IMAGES, min(MAX_IMAGES, MAX_VALUES // int(np.prod(shape))))
    count = latents.affordable_rows(MIN_IMAGES, maximum)
    if path is None:
        return SampleImages(synthesize(shape, min(MAX_SYNTHETIC_IMAGES, count)), "synthetic images", are_real=False)
    return SampleImages(read_sample_file(path, shape, count, answers.resampling), path.name, are_real=True)


def read_sample_file(
    path: Path, shape: tuple[int, int, int], max_count: int, resampling: Resampling = "lanczos"
) -> Pixels:
    """Read images of channels, height and width `shape` from a folder, an npz or an IDX file.

    The images of a folder are resized with the filter `resampling`.

    Raises:
        DataError, ImportRefused: no image can be read, or the images have another size or type.
    """
    if path.is_dir():
        return _read_folder(path, shape, max_count, resampling)
    if not path.is_file():
        raise ImportRefused(f"{path} is absent: --images is a folder of images, an npz or an IDX file")
    array = _read_npz(path) if path.suffix == ".npz" else _read_idx(path)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or not len(array) or array.shape[1:] != (*shape[1:], shape[0]):
        expected = f"[N, {shape[1]}, {shape[2]}{', 3' if shape[0] == 3 else ''}]"
        raise ImportRefused(f"{path.name} holds {list(array.shape)}; the model's images are {expected}")
    return np.ascontiguousarray(to_levels(choose(array, max_count), path.name).transpose(0, 3, 1, 2))


def choose(images: NDArray[Any], max_count: int) -> NDArray[Any]:
    """At most `max_count` of the images, in their order, chosen at random: files may be sorted, or have a period."""
    if len(images) <= max_count:
        return images
    return images[np.sort(np.random.default_rng(0).permutation(len(images))[:max_count])]


def _read_folder(folder: Path, shape: tuple[int, int, int], max_count: int, resampling: Resampling) -> Pixels:
    """Read images of any size, cropped and resized. Files that are not images are skipped."""
    channels, height, width = shape
    reading = crop_to(height, width, "L" if channels == 1 else "RGB", resampling=resampling)
    images = []
    for name in list_images(folder):  # in the order of their hashes
        try:
            images.append(read_images([(folder / name).read_bytes()], reading)[0])
        except (OSError, InvalidInput):
            continue
        if len(images) == max_count:
            break
    if not images:
        raise ImportRefused(f"{folder} has no images that can be read")
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))


def _read_npz(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            names = [name for name in ARRAY_NAMES if name in file] or list(file.files)[:1]
            return np.asarray(file[names[0]])
    except Exception as error:  # the parsers of numpy and zipfile raise many kinds
        raise ImportRefused(f"{path.name} cannot be read as .npz") from error


def _read_idx(path: Path) -> Pixels:
    try:
        stored = path.read_bytes()
        return parse_idx(gzip.decompress(stored) if path.suffix == ".gz" else stored)
    except (OSError, EOFError, zlib.error, DataError) as error:
        raise ImportRefused(f"{path.name} cannot be read as an IDX file") from error


def synthesize(shape: tuple[int, int, int], count: int) -> Pixels:
    """Soft blobs of random position, size and color on black, the same every time: `[count, *shape]`."""
    channels, height, width = shape
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0 : 1 : complex(0, height), 0 : 1 : complex(0, width)]
    images = np.zeros((count, *shape))
    for image in images:
        for _ in range(3):
            y, x, size = *rng.uniform(0.2, 0.8, 2), rng.uniform(0.05, 0.2)
            blob = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * size**2))
            image += rng.uniform(0.3, 1, (channels, 1, 1)) * blob
    return np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)
