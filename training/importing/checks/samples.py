"""Images to try an import with: a folder's, a file's, or pictures made for want of them."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.codecs.images import READERS, Reading, read_images
from app.errors import InvalidInput
from training.data.folder import MAX_PIXELS, list_images
from training.data.idx import parse_idx
from training.errors import DataError
from training.importing.checks.probe import SIDES, Latents
from training.importing.options import Answers
from training.importing.refusal import ImportRefused

LEAST, MOST = 8, 256
"""Images that are tried: the most where that takes no longer than PATIENCE_SECONDS."""
MOST_VALUES = 2**24
"""Pixels times channels of all of them together."""
MADE = 64
"""Pictures that are made."""
NAMES = ("test_images", "images", "x_test", "train_images")
"""Arrays of an npz file that are looked for, in this order."""


@dataclass(frozen=True)
class Samples:
    """Images uint8 `[N, C, H, W]`, N at least 1, and what the card says that they are."""

    images: NDArray[np.uint8]
    title: str
    are_real: bool


def read_samples(path: Path | None, answers: Answers, latents: Latents) -> Samples:
    """Images of the model's size from a folder of pictures, an npz or an IDX file; without, made ones.

    Raises:
        ImportRefused: there are none to be read, or they are of another size.
    """
    height, width = answers.height or SIDES[0], answers.width or SIDES[0]
    shape = answers.channels, height, width
    most = latents.rows(LEAST, max(LEAST, min(MOST, MOST_VALUES // (answers.channels * height * width))))
    if path is None:
        return Samples(made_pictures(shape, min(MADE, most)), "made pictures", are_real=False)
    return Samples(read_pictures(path, shape, most), path.name, are_real=True)


def read_pictures(path: Path, shape: tuple[int, int, int], most: int) -> NDArray[np.uint8]:
    """At most so many images of channels, height and width from a folder of pictures, an npz or an IDX file.

    Raises:
        ImportRefused: there are none to be read, or they are of another size.
    """
    return _folder(path, shape, most) if path.is_dir() else _file(path, shape, most)


def _folder(folder: Path, shape: tuple[int, int, int], most: int) -> NDArray[np.uint8]:
    channels, height, width = shape
    mode: Literal["L", "RGB"] = "L" if channels == 1 else "RGB"
    reading = Reading(
        height=height,
        width=width,
        mode=mode,
        max_pixels=MAX_PIXELS,
        crop=True,
        first_frame=True,
        formats=(*READERS, "BMP"),
    )
    images = []
    for name in list_images(folder):
        try:
            images.append(read_images([(folder / name).read_bytes()], reading)[0])
        except (OSError, InvalidInput):
            continue
        if len(images) == most:
            break
    if not images:
        raise ImportRefused(f"{folder} has no pictures that can be read")
    return np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2))


def _file(path: Path, shape: tuple[int, int, int], most: int) -> NDArray[np.uint8]:
    if not path.is_file():
        raise ImportRefused(f"{path} is absent: --images is a folder of pictures, an npz or an IDX file")
    array = _npz(path) if path.suffix == ".npz" else _idx(path)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or not len(array) or array.shape[1:] != (*shape[1:], shape[0]):
        wanted = f"[N, {shape[1]}, {shape[2]}{', 3' if shape[0] == 3 else ''}]"
        raise ImportRefused(f"{path.name} holds {list(array.shape)}; the model's images are {wanted}")
    some = array[:: max(1, len(array) // most)][:most]
    return np.ascontiguousarray(_grey_levels(some, path).transpose(0, 3, 1, 2))


def _npz(path: Path) -> NDArray[Any]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            names = [name for name in NAMES if name in file] or list(file.files)[:1]
            return np.asarray(file[names[0]])
    except Exception as error:  # numpy and zipfile raise whatever their parsers come upon
        raise ImportRefused(f"{path.name} cannot be read as .npz") from error


def _idx(path: Path) -> NDArray[np.uint8]:
    try:
        stored = path.read_bytes()
        return parse_idx(gzip.decompress(stored) if path.suffix == ".gz" else stored)
    except (OSError, EOFError, zlib.error, DataError) as error:
        raise ImportRefused(f"{path.name} cannot be read as an IDX file") from error


def _grey_levels(array: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f" and ((array >= 0) & (array <= 1)).all():
        return np.rint(array * np.float32(255)).astype(np.uint8)
    raise ImportRefused(f"{path.name} holds {array.dtype}; images are uint8, or floats that are all from 0 to 1")


def made_pictures(shape: tuple[int, int, int], count: int) -> NDArray[np.uint8]:
    """Soft blobs of random place, size and colour on black, the same every time: `[count, *shape]`."""
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
