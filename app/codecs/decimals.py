"""Arrays as decimal numbers: lists and JSON, in which a float has the 7 significant digits that float32 has."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from app.maths.arrays import Doubles

_DIGITS = 7
_DECADES = np.floor((np.arange(256) - 127) * math.log10(2))
"""Number of the decade in which the float32 numbers of each binary exponent begin: 2 from 100 on."""
_SCALES = np.where(np.abs(_DECADES + 5) <= 11, 10.0 ** (_DIGITS - 1 - _DECADES), np.nan)
"""Power of ten that leaves 7 or 8 digits before the point, by binary exponent; NaN if it is not exact in float64."""
_SCALES[0] = 1  # zero, and numbers below 2**-126

_FEW_NUMBERS = 2**9
"""Maximum numbers that Python formats sooner than numpy rounds them."""
_PIECE = 2**14
"""Maximum numbers that are written at a time: a few milliseconds, in which no other thread can run."""


def json_of(array: NDArray[Any]) -> bytes:
    """The array in JSON, as in `listed`; NaN and infinities are null.

    Long arrays are written in pieces, between which other threads run.
    """
    if array.dtype.kind == "f" and array.size <= _FEW_NUMBERS:
        text = _template(array.shape) % tuple(array.ravel().tolist())
        if "n" not in text:  # as in nan and inf, which JSON does not have
            return text.encode()
    row = math.prod(array.shape[1:])
    if row > _PIECE:
        parts = [json_of(values.ravel()) for values in array]
    else:
        step = max(1, _PIECE // max(1, row))
        pieces = (listed(array[at : at + step]) for at in range(0, len(array), step))
        parts = [to_json(piece, inf_nan_mode="null")[1:-1] for piece in pieces]
    return b"[%b]" % b",".join(parts)


def listed(array: NDArray[Any]) -> list[Any]:
    """The array as lists of numbers: each row of an array of more than two axes is one flat list."""
    rows = array.reshape(len(array), -1) if array.ndim > 2 else array
    numbers: list[Any] = (significant(rows) if rows.dtype.kind == "f" else rows).tolist()
    return numbers


def significant(array: NDArray[Any]) -> Doubles:
    """Floats rounded to 7 significant digits, as float64: their shortest decimals have no more."""
    array = array.astype(np.float32, copy=False)
    scales = _SCALES[array.view(np.int32) >> 23 & 255]
    scaled = array * scales
    rounded: Doubles = np.where(np.abs(scaled) < 10**_DIGITS, np.rint(scaled), 10 * np.rint(scaled / 10)) / scales
    others = np.isnan(rounded) | ((rounded == 0) & (array != 0))
    if others.any():
        rounded[others] = [float(f"{number:.{_DIGITS}g}") for number in array[others].tolist()]
    return rounded


@lru_cache(256)
def _template(shape: tuple[int, ...]) -> str:
    """A format of the JSON of an array of this shape."""
    row = f"[{','.join([f'%.{_DIGITS}g'] * math.prod(shape[1:] or shape))}]"
    return f"[{','.join([row] * shape[0])}]" if len(shape) > 1 else row
