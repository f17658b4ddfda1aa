"""The images that a reduction is measured on, and the images that int8 is calibrated with."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.bundle.manifest import Manifest
from app.maths.likelihood import Pixels
from training.data import load_dataset, read_options
from training.errors import ReductionRefused
from training.evaluate import prepare
from training.importing.checks.latents import SIDES
from training.importing.checks.samples import read_sample_file

MAX_VALUES = 2**26
"""Maximum of pixels times channels, over all images."""
MAX_CALIBRATION_IMAGES = 512


@dataclass(frozen=True)
class ReductionImages:
    """Images uint8 `[N, C, H, W]`, prepared as the encoder takes them."""

    held_out: Pixels
    calibration: Pixels
    split: str
    """Origin of the held-out images: a split of the data set, or the name of a folder or file."""


def read_images(
    directory: Path, manifest: Manifest, *, data_dir: Path, images: Path | None, count: int, seed: int
) -> ReductionImages:
    """Read the data set that a bundle was trained on, or `images`, every second of which is held out.

    Raises:
        DataError: the data set cannot be read, or `images` is a file of another kind.
        ImportRefused: `images` cannot be read.
        ReductionRefused: the bundle does not name its data set, or `images` holds a single image.
    """
    if images is None:
        if not (directory / "recipe.toml").exists():
            raise ReductionRefused(f"{directory} has no recipe.toml that names its data set: pass --images")
        dataset = load_dataset(read_options(directory), data_dir)
        held_out, calibration, split = dataset.test.images, dataset.train.images, "test"
    else:
        shape = _image_shape(manifest)
        pixels = read_sample_file(images, shape, 2 * _limit(count, int(np.prod(shape))), manifest.image.resampling)
        held_out, calibration, split = pixels[::2], pixels[1::2], images.name
    held_out = held_out[: _limit(count, held_out[0].size)]
    calibration = calibration[: _limit(MAX_CALIBRATION_IMAGES, held_out[0].size)]
    if not len(calibration):
        raise ReductionRefused(f"{images} holds one image: at least two are needed")
    return ReductionImages(
        prepare(np.ascontiguousarray(held_out), manifest, seed),
        prepare(np.ascontiguousarray(calibration), manifest, seed + 1),
        split,
    )


def _limit(count: int, values: int) -> int:
    """Number of images of `values` values each that fit in memory, at most `count`."""
    return max(1, min(count, MAX_VALUES // values))


def _image_shape(manifest: Manifest) -> tuple[int, int, int]:
    """Channels, height and width. For a model of any size, about the size that imports are tested with."""
    image, stride = manifest.image, manifest.latent.stride or 1
    side = max(1, SIDES[0] // stride) * stride
    return image.channels, image.height or side, image.width or side
