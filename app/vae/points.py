"""Points of a latent space from a request, and decoded latents."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import InvalidInput
from app.maths.arrays import Doubles, Floats, Pixels


@dataclass(frozen=True)
class Points:
    """Points of one size: latents, class means, and images, each standing for its posterior mean."""

    latents: Floats
    """`[P, *latent]`; the rows of images are zeros."""
    images: Pixels | None
    """`[M, H, W, C]`; None if no point is an image."""
    image_rows: list[int]
    """The row in `latents` of each image."""
    all_latents: bool
    """Whether every point was given as a latent, none as an image or a class."""
    pointer: str
    """JSON pointer of the points in the request."""

    def __len__(self) -> int:
        return len(self.latents)


@dataclass(frozen=True)
class Decoded:
    """Latents and the images that they decode to."""

    latents: Floats
    """`[N, *latent]`"""
    images: Pixels
    """`[N, H, W, C]`"""
    latent_percentile: Doubles | None
    """`[N]`: percentage of prior draws that are nearer to the origin than each latent; None unless requested."""


def finite_latents(array: NDArray[Any], pointer: str = "", *, rows: bool = True) -> Floats:
    """Convert latents `[N, *latent]` to float32.

    Raises:
        InvalidInput: a value is not finite as float32; the pointer is that of its row, unless `rows` is false.
    """
    with np.errstate(over="ignore"):
        latents = array.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(latents).reshape(len(latents), -1).all(axis=1))
    if len(bad):
        raise InvalidInput("not finite as float32", f"{pointer}/{bad[0]}" if rows else pointer)
    return np.ascontiguousarray(latents)
