"""Tensors on the wire <-> arrays: JSON numbers, and raw little-endian bytes without padding. numpy only.

The Open Inference Protocol names data types `FP32`, PyTorch names them `float32`; both tables are here. numpy has no
bfloat16: such bytes become float32, which holds every one of its values.
"""

import math
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import BadRequest, InvalidInput

DATATYPES = {"UINT8": "uint8", "FP16": "float16", "FP32": "float32", "FP64": "float64"}
"""The protocol's names of data types, and numpy's."""
NAMES = {name: datatype for datatype, name in DATATYPES.items()}

BFLOAT16 = "bfloat16"
_MAX_DIMENSIONS = 8
_MAX_DIGITS = 19
_NUMBERS = {int, float}


def of_json(data: list[Any], dtype: str, shape: Sequence[int]) -> NDArray[Any]:
    """The array of JSON numbers, flat or nested as `shape` says, in row-major order.

    Raises:
        InvalidInput: a wrong number of values, or one that is not a number, not finite or outside the type's range.
    """
    count, values = _count(shape), _flat(data, shape)
    if len(values) != count:
        raise InvalidInput("another number of values than the shape says")
    if not set(map(type, values)) <= _NUMBERS:  # a bool is not accepted as a number
        raise InvalidInput("must be numbers, flat or nested as the shape says")
    try:
        array = np.array(values, np.float64).reshape(shape)
    except OverflowError:  # an integer too large for float64
        raise InvalidInput(f"a number that {dtype} does not hold") from None
    return _cast(array, np.dtype(dtype))


def _count(shape: Sequence[int]) -> int:
    if not (1 <= len(shape) <= _MAX_DIMENSIONS and min(shape) >= 1):
        raise InvalidInput(f"a shape has 1 to {_MAX_DIMENSIONS} sizes, of 1 or more")
    return math.prod(shape)


def _flat(data: list[Any], shape: Sequence[int]) -> list[Any]:
    """The values of nested lists, or of a flat list. The shape bounds the work, even if the lists are deeper."""
    if not data or type(data[0]) is not list:
        return data
    level: list[Any] = [data]
    for size in shape:
        if any(type(items) is not list or len(items) != size for items in level):
            raise InvalidInput("nested otherwise than the shape says")
        level = list(chain.from_iterable(level))
    return level


def _cast(array: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "u":
        fits = (array >= 0) & (array <= np.iinfo(dtype).max) & (array == np.floor(array))
        if not fits.all():
            raise InvalidInput(f"must be whole numbers of 0 to {np.iinfo(dtype).max}")
        return array.astype(dtype)
    with np.errstate(over="ignore"):
        cast = array.astype(dtype)
    if not np.isfinite(cast).all():
        raise InvalidInput(f"a number that {dtype} does not hold")
    return cast


def of_bytes(content: bytes | memoryview, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
    """The array of raw little-endian values in row-major order; `bfloat16` becomes float32.

    The array may be read-only and unaligned.

    Raises:
        InvalidInput: the number of bytes is not that of the shape and the data type.
    """
    wire = np.dtype("uint16" if dtype == BFLOAT16 else dtype).newbyteorder("<")
    if len(content) != _count(shape) * wire.itemsize:
        raise InvalidInput("another number of bytes than shape and data type say")
    values = np.frombuffer(content, wire).reshape(shape)
    if dtype == BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(dtype, copy=False)


def to_bytes(array: NDArray[Any], dtype: str | None = None) -> bytes:
    """Raw little-endian values in row-major order, of the array's type or converted to `dtype`.

    Values that are too large become infinite; float32 is rounded to the nearest `bfloat16`, ties to even."""
    if dtype == BFLOAT16:
        words = np.ascontiguousarray(np.where(np.isnan(array), np.nan, array), np.float32).view(np.uint32)
        rounding = ((words >> 16) & 1) + 0x7FFF
        return ((words + rounding) >> 16).astype("<u2").tobytes()
    wire = np.dtype(dtype or array.dtype).newbyteorder("<")
    with np.errstate(over="ignore"):
        return array.astype(wire, copy=False).tobytes()


def split_header(content: bytes, length: bytes | None) -> tuple[memoryview, memoryview]:
    """Split a body into its JSON and its raw tensors.

    `length` is the header `Inference-Header-Content-Length`, the bytes of JSON; without it, the whole body is JSON.

    Raises:
        BadRequest: the header is not a number, or exceeds the body.
    """
    view = memoryview(content)
    if length is None:
        return view, view[len(view) :]
    if not (length.isdigit() and len(length) <= _MAX_DIGITS and int(length) <= len(content)):
        raise BadRequest("Inference-Header-Content-Length must be the length of the JSON that the body begins with")
    return view[: int(length)], view[int(length) :]


def split_tensors(binary: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    """Split `binary` into consecutive raw tensors of `sizes` bytes each.

    Raises:
        BadRequest: the sizes do not add up to the bytes of `binary`.
    """
    if sum(sizes) != len(binary):
        raise BadRequest("what follows the JSON has another length than its tensors say")
    return [binary[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]
