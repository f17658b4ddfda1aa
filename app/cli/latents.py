"""Latents that a command is given: typed, or in files."""

import io
import math
from pathlib import Path

import numpy as np

from app.errors import UsageError
from app.maths.gaussian import Floats

LATENT = "latent:"


def read_latents(text: str) -> Floats:
    """Latents `[N, *latent]`: `latent:0.5,-1.2`, or an npy file, or an npz file with `latents` or else `mean`.

    Raises:
        UsageError: none of these, or it holds no floats.
    """
    if text.startswith(LATENT):
        return np.array([numbers(text)], np.float32)
    try:
        loaded = np.load(io.BytesIO(Path(text).read_bytes()), allow_pickle=False)
        array = loaded if isinstance(loaded, np.ndarray) else loaded["latents" if "latents" in loaded else "mean"]
        if array.dtype.kind != "f" or array.ndim < 2 or not len(array):
            raise ValueError("no rows of floats")
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, which the server refuses
            return array.astype(np.float32)
    except FileNotFoundError:
        raise UsageError(f"there is no {text}: latents are latent:0.5,-1.2, or npy and npz files") from None
    except Exception:  # numpy, zipfile and zlib raise many things at a damaged file
        raise UsageError(
            f"{text}: not latent:1,2,3, nor an npy or npz file with rows of floats, `latents` or `mean`"
        ) from None


def numbers(text: str) -> list[float]:
    """Of `latent:0.5,-1.2`; raises UsageError where they are none."""
    try:
        values = [float(number) for number in text.removeprefix(LATENT).split(",")]
    except ValueError:
        values = []
    if not values or not all(map(math.isfinite, values)):
        raise UsageError(f"{text}: a latent is written latent:0.5,-1.2")
    return values
