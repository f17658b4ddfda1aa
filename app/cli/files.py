"""The pictures that a command is given: found in folders and by globs, read a batch at a time."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TextIO

import numpy as np

from app.codecs.images import Pixels, Reading, read_images
from app.errors import InvalidInput, UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
"""Of the files in a folder that are taken; a file that is named itself may be called anything."""
STDIN = "-"


@dataclass
class Batch:
    """Pictures `[N, H, W, C]` that could be read, their names, and why the others could not."""

    pixels: Pixels
    names: list[str]
    skipped: dict[str, str] = field(default_factory=dict)


def find(paths: Sequence[str], *, recursive: bool = False) -> list[str]:
    """Every picture once: in the order of `paths`, and by name within each.

    Raises:
        UsageError: a path that is not there, or none of them holds a picture.
    """
    names = list(dict.fromkeys(name for path in paths for name in _found(path, recursive)))
    if not names:
        raise UsageError(f"no pictures there: a folder's {', '.join(SUFFIXES)} are taken; --recursive looks deeper")
    return names


def _found(path: str, recursive: bool) -> Iterator[str]:
    if path == STDIN:
        yield path
    elif os.path.isdir(path):
        yield from _in_folder(path, recursive)
    elif os.path.exists(path):
        yield path
    elif matches := sorted(glob.glob(path, recursive=True)):
        yield from (match for match in matches if not os.path.isdir(match))
    else:
        raise UsageError(f"there is no {path}")


def _in_folder(folder: str, recursive: bool) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if recursive else []
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(root, name)


def read(names: Sequence[str], reading: Reading, shape: tuple[int, ...] | None = None) -> Batch:
    """Read pictures as a model takes them, those of one `shape` `(H, W, C)` where it is given; what cannot be read, or
    has another, is skipped, and why is told."""
    pixels, kept, skipped = [], [], {}
    for name in names:
        try:
            (image,) = read_images([_content(name)], reading)
            if shape is not None and image.shape != shape:
                raise InvalidInput("of another size than the first: this model keeps sizes, so all must have the same")
            pixels.append(image)
            kept.append(name)
        except OSError as error:
            skipped[name] = error.strerror or "cannot be read"
        except InvalidInput as error:
            skipped[name] = error.detail
    return Batch(np.stack(pixels) if pixels else np.empty((0, 0, 0, 0), np.uint8), kept, skipped)


def first_shape(names: Sequence[str], reading: Reading) -> tuple[int, ...] | None:
    """Shape `(H, W, C)` of the first picture that can be read."""
    shapes = (read([name], reading).pixels.shape[1:] for name in names)
    return next((shape for shape in shapes if shape[-1]), None)


def _content(name: str) -> bytes:
    return _all_of(sys.stdin) if name == STDIN else Path(name).read_bytes()


@lru_cache(1)
def _all_of(stream: TextIO) -> bytes:
    """What a stream holds, which can be read once, and may be asked for twice."""
    return stream.buffer.read()
