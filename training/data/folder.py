"""A folder of pictures of any size as a data set of squares."""

import hashlib
import os
import sys
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.progress import track

from app.bundle.manifest import Color
from app.codecs.images import READERS, Reading, parse_color, read_images
from app.errors import InvalidInput
from training.data import dataset
from training.data.dataset import BLACK, SIDE, DataError, Fraction, RelativePath, Split, is_within

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
MAX_PIXELS = 2**28
"""Of one picture, before it is resized: nearly a gigabyte of RGB."""
LABELS = range(2, 257)
"""How many classes labels of one byte can tell apart."""
REPORTED = 20
"""Unreadable files that are named; the others are counted."""


class Options(dataset.Options):
    """The pictures in a folder and all folders below it: PNG, JPEG, WebP, BMP, or the first frame of a GIF.

    Where each lies in a sub-folder, and there are 2 to 256 of these, a picture's label is the number of its sub-folder
    in sorted order, and is called like it.
    """

    dataset: Literal["folder"]
    path: RelativePath
    """Of the folder, relative to the data directory."""
    size: Annotated[int, Field(ge=8, le=1024, multiple_of=SIDE)]
    """Pixels a side. Pictures are cut to their centre square, which is resized to this."""
    mode: Literal["L", "RGB"] = "RGB"
    """Grey or colour; pictures of the other kind are converted."""
    background: Color = BLACK
    """What transparent pictures are put on, here and in the server: `#rrggbb`."""
    test_fraction: Fraction = 0.1
    """About so many of the files are the test split. A file's path alone decides, so that no other file moves it."""

    @property
    def key(self) -> str:
        """What the manifest calls it."""
        return f"folder:{self.path}"

    @property
    def title(self) -> str:
        """What the card calls it."""
        return PurePosixPath(self.path).name


def read(options: Options, data_dir: Path) -> tuple[Split, Split]:
    """The training and the test split of the folder, each in the order of their paths' hashes.

    The folder may itself be a link. Links in it are read if they point to a file in it; linked folders are not entered.
    What cannot be read is skipped, and reported on stderr. Either split may come out empty.

    Raises:
        DataError: there is no such folder, or no picture in it that can be read.
    """
    folder = data_dir / options.path
    if not folder.is_dir():
        raise DataError(f"{folder} is absent, or is no folder")
    names = list_pictures(folder)
    if not names:
        raise DataError(f"{folder} has no pictures: no file ends in {', '.join(SUFFIXES)}")
    skipped: list[str] = []
    train, train_names = _read_pictures(folder, [n for n in names if not is_test(n, options)], options, skipped)
    test, test_names = _read_pictures(folder, [n for n in names if is_test(n, options)], options, skipped)
    _report(skipped)
    if len(skipped) == len(names):
        raise DataError(f"{folder}: none of the pictures can be read")
    classes = find_classes(train_names + test_names)
    called = tuple(os.fsencode(name).decode(errors="replace") for name in classes)
    return Split(train, _labels(train_names, classes), called), Split(test, _labels(test_names, classes), called)


def list_pictures(folder: Path) -> list[str]:
    """Relative paths, with `/`, of the files in `folder` and below it that are named like a picture.

    In the order of their hashes: in that of their names, the first and the last images would be of one class.
    """
    names = (
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and (path.is_file() or path.is_symlink())
    )
    return sorted(names, key=_digest)


def is_test(name: str, options: Options) -> bool:
    """Whether the file of this relative path is in the test split: its hash as a number in [0, 1) is small."""
    return is_within(_digest(name), options.test_fraction)


def _digest(name: str) -> bytes:
    return hashlib.sha256(os.fsencode(name)).digest()


def find_classes(names: list[str]) -> list[str]:
    """The first-level sub-folders of these paths, sorted; none, unless each path has one and they are 2 to 256."""
    folders = {_sub_folder(name) for name in names}
    return sorted(folders) if "" not in folders and len(folders) in LABELS else []


def _sub_folder(name: str) -> str:
    return name.split("/")[0] if "/" in name else ""


def _labels(names: list[str], classes: list[str]) -> NDArray[np.uint8] | None:
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[_sub_folder(name)] for name in names], np.uint8) if classes else None


def _read_pictures(
    folder: Path, names: list[str], options: Options, skipped: list[str]
) -> tuple[NDArray[np.uint8], list[str]]:
    """The readable pictures, uint8 `[N, C, size, size]`, and their names. A line on each other one joins `skipped`."""
    reading = Reading(
        height=options.size,
        width=options.size,
        mode=options.mode,
        max_pixels=MAX_PIXELS,
        crop=True,
        first_frame=True,
        background=parse_color(options.background),
        formats=(*READERS, "BMP"),
    )
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
    for line in sorted(skipped)[:REPORTED]:
        print(f"skipped {line}", file=sys.stderr)
    if len(skipped) > REPORTED:
        print(f"skipped {len(skipped) - REPORTED} more files", file=sys.stderr)
