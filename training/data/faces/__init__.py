"""Cartoon faces in the style toon-head by Johan Melin, drawn from a seed. Every option of a face is a label."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from pydantic import Field

from training.data.dataset import LOCK, SIDE, DatasetOptions, Fraction, Split, is_within
from training.data.faces.choices import (
    CLASSES,
    COLORS,
    SHAPES,
    Options,
    choose,
    combination_digests,
    labels_of,
    to_lines,
)
from training.data.faces.drawing import FILES, draw
from training.errors import DataError


class FacesOptions(DatasetOptions):
    """Cartoon faces on white, drawn with Node.js if they are missing. The labels are the hair, with that at the back.

    All faces of the same shapes (hair, clothes, beard, eyes, brows, mouth) are in one split, whatever their colors.
    """

    background: ClassVar = "#ffffff"
    resampling: ClassVar = "lanczos"
    dataset: Literal["faces"]
    count: Annotated[int, Field(gt=0, le=1_000_000)] = 60_000
    """Number of faces of both splits."""
    size: Annotated[int, Field(ge=16, le=256, multiple_of=SIDE)] = 64
    """Pixels per side."""
    draw_seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the faces. With the same seed, a longer data set begins with the faces of a shorter one."""
    test_fraction: Fraction = 0.04
    """Approximate fraction of the faces in the test split. A face's split depends only on its shapes."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Expected SHA-256 of the images' bytes, to be sure of training on the same ones. Other images are refused."""


def read(options: FacesOptions, data_dir: Path) -> tuple[Split, Split]:
    """Read the training and the test split, each in the order of their shapes' hashes.

    Missing faces are drawn into `data_dir/faces`.

    Raises:
        DataError: the faces are missing and cannot be drawn, their file is damaged, or they have another sha256.
    """
    chosen = choose(options.count, options.draw_seed)
    images = _read_images(options, chosen, data_dir / options.dataset)
    digests = combination_digests(chosen)
    rows = sorted(range(options.count), key=digests.__getitem__)
    test = [is_within(digests[row], options.test_fraction) for row in rows]
    order, held_out = np.array(rows), np.array(test)
    return _split(images, chosen, order[~held_out]), _split(images, chosen, order[held_out])


def _read_images(options: FacesOptions, chosen: Options, folder: Path) -> NDArray[np.uint8]:
    """The images `[N, size, size, 3]`, drawn if they are missing and then checked."""
    lines = to_lines(chosen)
    source = hashlib.sha256("\n".join([str(options.size), options.background, *lines]).encode())
    for name in FILES:
        source.update(Path(__file__).with_name(name).read_bytes())
    path = folder / f"{source.hexdigest()[:16]}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            if not path.exists():
                images = draw(lines, options.size, options.background, folder / "node")
                _write(path, {"images": images, "sha256": np.array(_sha256(images)), **chosen})
    images, digest = _load(path)
    if options.sha256 not in (None, digest):
        raise DataError(f"the faces of {path} have the sha256 {digest}, and not the recipe's {options.sha256}")
    return images


def _load(path: Path) -> tuple[NDArray[np.uint8], str]:
    """The images of a file, and their sha256, which is that in the file."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            images, digest = file["images"], str(file["sha256"])
    except Exception as error:  # numpy's and zipfile's parsers raise many types
        raise DataError(f"{path} is damaged: remove it, and the faces are drawn again") from error
    if _sha256(images) != digest:
        raise DataError(f"{path} is damaged: remove it, and the faces are drawn again")
    return images, digest


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    part = path.with_suffix(".part")
    with part.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
    os.replace(part, path)


def _sha256(images: NDArray[np.uint8]) -> str:
    return hashlib.sha256(images.tobytes()).hexdigest()


def _split(images: NDArray[np.uint8], chosen: Options, rows: NDArray[np.int64]) -> Split:
    """The faces of these rows, with all of their options."""
    attributes = {name: chosen[name][rows] for name in (*SHAPES, *COLORS)}
    pixels = np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2))
    return Split(pixels, labels_of(attributes), CLASSES, attributes)
