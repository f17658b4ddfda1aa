"""Latents on the command line: typed, or in npy and npz files."""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.errors import UsageError
from app.maths.gaussian import Floats

LATENT = "latent:"


def read_latents(text: str) -> Floats:
    """Latents `[N, *latent]` of an npy file, or of `latents` or else `mean` in an npz; `[1, d]` of `latent:0.5,-1.2`.

    Raises:
        UsageError: the text is none of these, or the file has no rows of floats.
    """
    if text.startswith(LATENT):
        return np.array([parse_latent(text)], np.float32)
    try:
        loaded = np.load(io.BytesIO(Path(text).read_bytes()), allow_pickle=False)
        array = loaded if isinstance(loaded, np.ndarray) else loaded["latents" if "latents" in loaded else "mean"]
        if array.dtype.kind != "f" or array.ndim < 2 or not len(array):
            raise ValueError("no rows of floats")
        with np.errstate(over="ignore"):  # values beyond float32 become infinite, which the server refuses
            return array.astype(np.float32)
    except FileNotFoundError:
        raise UsageError(f"there is no {text}: latents are latent:0.5,-1.2, or npy and npz files") from None
    except Exception:  # numpy, zipfile and zlib raise many types on a damaged file
        raise UsageError(
            f"{text}: not latent:1,2,3, nor an npy or npz file with rows of floats, `latents` or `mean`"
        ) from None


def parse_latent(text: str) -> list[float]:
    """The values of `latent:0.5,-1.2`.

    Raises:
        UsageError: they are not finite numbers.
    """
    try:
        values = [float(number) for number in text.removeprefix(LATENT).split(",")]
    except ValueError:
        values = []
    if not values or not all(map(math.isfinite, values)):
        raise UsageError(f"{text}: a latent is written latent:0.5,-1.2")
    return values


def check_size(shape: Sequence[int | None], instead: str) -> None:
    """Raise if a model's latents have no fixed `shape`: a typed latent does not say which it has.

    Raises:
        UsageError: they have none; the message says what to give instead.
    """
    if None in shape:
        raise UsageError(f"this model's latents are maps of any size, and {LATENT} gives no size: give {instead}")


def typed_map(latent: Floats, shape: Sequence[int | None]) -> Floats:
    """Reshape a typed latent `[1, d]` to `[1, *shape]`, row-major; a latent of another size is returned unchanged.

    Raises:
        UsageError: the model's latents have no fixed shape.
    """
    check_size(shape, "an npy or npz file")
    sizes = [size for size in shape if size is not None]
    return latent.reshape(1, *sizes) if latent.size == math.prod(sizes) else latent
