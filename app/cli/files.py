"""Image files on the command line: found in folders and by globs, and converted for a model."""

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, TextIO

import typer

from app.cli.client import ServedVersion
from app.codecs.images import Pixels, Reading, parse_color, read_images
from app.errors import InvalidInput, UsageError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
"""Suffixes of the files that are read from a folder; a file given by its own name may have any suffix."""
STDIN = "-"
_MAX_PIXELS = 2**28
"""Maximum pixels of one image. Higher than a server's limit: the user's own file is decoded in this process."""


_option = partial(typer.Option, rich_help_panel="How images are read")


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """Options of the commands that read image files."""

    invert: Annotated[bool, _option("--invert", help="Black on white becomes white on black.")] = False
    background: Annotated[
        str | None,
        _option(help="Color under transparent pixels: a name, #rgb or #rrggbb; the model's own by default."),
    ] = None
    strict: Annotated[bool, _option("--strict", help="Skip images of another size or mode than the model's.")] = False

    def reading(self, served: ServedVersion) -> Reading:
        """How to convert images for a model: here and not on the server, so that only the model's pixels are sent.

        Raises:
            UsageError: the background is not a color.
        """
        image = served.manifest["image"]
        try:
            color = parse_color(self.background or image["background"])
        except InvalidInput as error:
            raise UsageError(f"--background: {error}") from None
        return Reading(
            height=image["height"],
            width=image["width"],
            multiple=served.manifest["latent"]["stride"] or 1,
            mode=image["mode"],
            max_pixels=_MAX_PIXELS,
            background=color,
            invert=self.invert,
            strict=self.strict,
            resampling=image["resampling"],
        )


def find(paths: Sequence[str], *, recursive: bool = False) -> list[str]:
    """Each image file once, in the order of `paths` and sorted by name within each.

    Raises:
        UsageError: a path does not exist, or there is no image in any of them.
    """
    names = list(dict.fromkeys(name for path in paths for name in _expand(path, recursive)))
    if not names:
        raise UsageError(f"no images found: folders are searched for {', '.join(SUFFIXES)}; --recursive looks deeper")
    return names


def _expand(path: str, recursive: bool) -> Iterator[str]:
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


def read(
    names: Sequence[str], reading: Reading, shape: tuple[int, ...] | None = None
) -> tuple[dict[str, Pixels], dict[str, str]]:
    """Pixels `[H, W, C]` by file name, and for each file that cannot be read, or is not of `shape`, the reason."""
    images, skipped = {}, {}
    for name in names:
        try:
            (image,) = read_images([_content(name)], reading)
            if shape is not None and image.shape != shape:
                raise InvalidInput("of another size than the first: this model keeps sizes, so all must have the same")
            images[name] = image
        except OSError as error:
            skipped[name] = error.strerror or "cannot be read"
        except InvalidInput as error:
            skipped[name] = error.detail
    return images, skipped


def first_shape(names: Sequence[str], reading: Reading) -> tuple[int, ...] | None:
    """Shape `(H, W, C)` of the first image that can be read."""
    return next((image.shape for name in names for image in read([name], reading)[0].values()), None)


def _content(name: str) -> bytes:
    return _read_all(sys.stdin) if name == STDIN else Path(name).read_bytes()


@lru_cache(1)
def _read_all(stream: TextIO) -> bytes:
    """The bytes of a stream; cached, because `first_shape` and `read` need them and a pipe can be read only once."""
    return stream.buffer.read()
