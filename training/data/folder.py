"""A folder of image files of any size as a data set of square images."""

import hashlib
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.progress import track

from app.bundle.manifest import Color
from app.codecs.images import READERS, Reading, Resampling, parse_color, read_images
from app.errors import InvalidInput
from training.data.dataset import BLACK, SIDE, DatasetOptions, Fraction, RelativePath, Split, is_within
from training.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
MAX_PIXELS = 2**28
"""Maximum pixels of an image file before it is resized: nearly a gigabyte of RGB."""
CLASS_COUNTS = range(2, 257)
"""Number of sub-folders for which they become classes: labels are one byte."""
MAX_REPORTED = 20
"""Maximum number of unreadable files that are named on stderr. Any others are only counted."""


class FolderOptions(DatasetOptions):
    """The images in a folder and all folders below it: PNG, JPEG, WebP, BMP, or the first frame of a GIF.

    If every image is in a sub-folder, and there are 2 to 256 sub-folders, the sub-folders are the classes. Their labels
    are their numbers in sorted order.
    """

    dataset: Literal["folder"]
    path: RelativePath
    """Path of the folder, relative to the data directory."""
    size: Annotated[int, Field(ge=8, le=1024, multiple_of=SIDE)]
    """Pixels per side. Images are cropped to their center square, which is resized to this."""
    mode: Literal["L", "RGB"] = "RGB"
    """Gray or color. Images of the other mode are converted."""
    background: Color = BLACK
    """Background of transparent images, in training and in the server: `#rrggbb`."""
    resampling: Resampling = "lanczos"
    """Pillow's filter that resizes images, in training and in the server."""
    test_fraction: Fraction = 0.1
    """Approximate fraction of the files in the test split. A file's split depends only on its path."""

    @property
    def key(self) -> str:
        """Name of the data set in manifests."""
        return f"folder:{self.path}"


def read(options: FolderOptions, data_dir: Path) -> tuple[Split, Split]:
    """Read the training and the test split of the folder, each in the order of its paths' hashes.

    The folder may itself be a link. Links in it are read if they point to a file in it. Linked folders are not entered.
    Unreadable files are skipped and reported on stderr. Either split may be empty.

    Raises:
        DataError: there is no such folder, or it holds no readable image file.
    """
    folder = data_dir / options.path
    if not folder.is_dir():
        raise DataError(f"{folder} is absent, or is not a folder")
    names = list_images(folder)
    if not names:
        raise DataError(f"{folder} has no images: no file ends in {', '.join(SUFFIXES)}")
    skipped: list[str] = []
    train, train_names = _read_images(folder, [n for n in names if not is_test(n, options)], options, skipped)
    test, test_names = _read_images(folder, [n for n in names if is_test(n, options)], options, skipped)
    _report(skipped)
    if len(skipped) == len(names):
        raise DataError(f"{folder}: none of the images can be read")
    classes = find_classes(train_names + test_names)
    called = tuple(os.fsencode(name).decode(errors="replace") for name in classes)
    return Split(train, _labels(train_names, classes), called), Split(test, _labels(test_names, classes), called)


def crop_to(
    height: int,
    width: int,
    mode: Literal["L", "RGB"],
    background: tuple[int, int, int] = (0, 0, 0),
    resampling: Resampling = "lanczos",
) -> Reading:
    """How image files of a folder are read: cropped to their middle, and resized."""
    return Reading(
        height=height,
        width=width,
        mode=mode,
        max_pixels=MAX_PIXELS,
        crop=True,
        first_frame=True,
        background=background,
        resampling=resampling,
        formats=(*READERS, "BMP"),
    )


def list_images(folder: Path) -> list[str]:
    """Relative paths, with `/`, of the image files in `folder` and below it, by their suffixes.

    They are in the order of their hashes: in the order of their names, neighbors would have the same class.
    """
    names = (
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and (path.is_file() or path.is_symlink())
    )
    return sorted(names, key=_digest)


def is_test(name: str, options: FolderOptions) -> bool:
    """Whether the file of this relative path is in the test split, by the hash of the path."""
    return is_within(_digest(name), options.test_fraction)


def _digest(name: str) -> bytes:
    return hashlib.sha256(os.fsencode(name)).digest()


def find_classes(names: list[str]) -> list[str]:
    """The first-level sub-folders of these paths, sorted; none unless every path has one and there are 2 to 256."""
    folders = {_sub_folder(name) for name in names}
    return sorted(folders) if "" not in folders and len(folders) in CLASS_COUNTS else []


def _sub_folder(name: str) -> str:
    return name.split("/")[0] if "/" in name else ""


def _labels(names: list[str], classes: list[str]) -> NDArray[np.uint8] | None:
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[_sub_folder(name)] for name in names], np.uint8) if classes else None


def _read_images(
    folder: Path, names: list[str], options: FolderOptions, skipped: list[str]
) -> tuple[NDArray[np.uint8], list[str]]:
    """The readable images, uint8 `[N, C, size, size]`, and their names. Each other one adds a line to `skipped`."""
    reading = crop_to(options.size, options.size, options.mode, parse_color(options.background), options.resampling)
    images = np.empty((len(names), len(options.mode), options.size, options.size), np.uint8)
    read: list[str] = []
    for name in track(names, f"Reading {options.title}", transient=True, disable=not sys.stdout.isatty()):
        try:
            pixels = read_images([_content(folder, name)], reading)[0]
        except (OSError, InvalidInput) as error:
            skipped.append(f"{name}: {error}")
        else:
            images[len(read)] = pixels.transpose(2, 0, 1)
            read.append(name)
    return images[: len(read)], read


def _content(folder: Path, name: str) -> bytes:
    path = os.path.realpath(folder / name)
    if not Path(path).is_relative_to(os.path.realpath(folder)):
        raise InvalidInput("a link that leaves the folder")
    return Path(path).read_bytes()


def _report(skipped: list[str]) -> None:
    for line in sorted(skipped)[:MAX_REPORTED]:
        print(f"skipped {line}", file=sys.stderr)
    if len(skipped) > MAX_REPORTED:
        print(f"skipped {len(skipped) - MAX_REPORTED} more files", file=sys.stderr)
