"""Latents that a command is given: typed, or in files."""

import io
import math
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from app.errors import UsageError
from app.gaussian import Floats

LATENT = "latent:"


def read_latents(text: str) -> Floats:
    """Latents `[N, *latent]`: `latent:0.5,-1.2`, or an npy file, or an npz file with `latents` or else `mean`.

    Raises:
        UsageError: none of these.
    """
    if text.startswith(LATENT):
        return np.array([numbers(text)], np.float32)
    try:
        loaded = np.load(io.BytesIO(Path(text).read_bytes()), allow_pickle=False)
        array = loaded if isinstance(loaded, np.ndarray) else loaded["latents" if "latents" in loaded else "mean"]
        latents = np.asarray(array, np.float32)
        if latents.ndim < 2 or not len(latents):
            raise ValueError("no rows")
        return latents
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        raise UsageError(f"{text}: not latent:1,2,3, nor an npy or npz file with `latents` or `mean`") from None


def numbers(text: str) -> list[float]:
    """Of `latent:0.5,-1.2`; raises UsageError where they are none."""
    try:
        values = [float(number) for number in text.removeprefix(LATENT).split(",")]
    except ValueError:
        values = []
    if not values or not all(map(math.isfinite, values)):
        raise UsageError(f"{text}: a latent is written latent:0.5,-1.2")
    return values
