"""Images that a reduction is measured on, and others that it is calibrated with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.bundle.manifest import Manifest
from app.maths.likelihood import Pixels
from training.data import load_dataset, read_options
from training.errors import ReductionRefused
from training.evaluate import prepare
from training.importing.checks.latents import SIDES
from training.importing.checks.samples import read_pictures

MOST_VALUES = 2**26
"""Pixels times channels of all images together."""
CALIBRATING = 512
"""Images that ranges are learnt from."""


@dataclass(frozen=True)
class Samples:
    """Images uint8 `[N, C, H, W]` as the encoder gets them, and where the held-out ones are from."""

    held_out: Pixels
    calibrating: Pixels
    split: str


def read_samples(
    directory: Path, manifest: Manifest, *, data_dir: Path, images: Path | None, count: int, seed: int
) -> Samples:
    """Of the data set that a bundle was trained on; or of `images`, a folder of pictures, an npz or an IDX file, every
    other one of which is held out.

    Raises:
        DataError: the data set cannot be had.
        ImportRefused: `images` cannot.
        ReductionRefused: it is not known what the bundle was trained on.
    """
    if images is None:
        if not (directory / "recipe.toml").exists():
            raise ReductionRefused(f"{directory} has no recipe.toml that names its data set: pass --images")
        dataset = load_dataset(read_options(directory), data_dir)
        held_out, calibrating, split = dataset.test.images, dataset.train.images, "test"
    else:
        pictures = read_pictures(images, _shape(manifest), 2 * _most(count, int(np.prod(_shape(manifest)))))
        held_out, calibrating, split = pictures[::2], pictures[1::2], images.name
    held_out = held_out[: _most(count, held_out[0].size)]
    calibrating = calibrating[: _most(CALIBRATING, held_out[0].size)]
    if not len(calibrating):
        raise ReductionRefused(f"{images} holds one image: two at least are needed")
    return Samples(_prepared(held_out, manifest, seed), _prepared(calibrating, manifest, seed + 1), split)


def _prepared(images: NDArray[np.uint8], manifest: Manifest, seed: int) -> Pixels:
    return prepare(np.ascontiguousarray(images), manifest, seed)


def _most(count: int, values: int) -> int:
    return max(1, min(count, MOST_VALUES // values))


def _shape(manifest: Manifest) -> tuple[int, int, int]:
    """Channels, height and width; a size like those that an import is tried with, where any will do."""
    image, stride = manifest.image, manifest.latent.stride or 1
    side = max(1, SIDES[0] // stride) * stride
    return image.channels, image.height or side, image.width or side
