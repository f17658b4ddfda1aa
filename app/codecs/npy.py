"""npy and npz files <-> arrays, safely: no pickle, and the header is checked against the number of bytes."""

import io
import math
import warnings
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from app.errors import BadRequest, InvalidInput

NPY = "application/x-npy"
NPZ = "application/x-npz"

_HEADER_BYTES = 4096
_DIMENSIONS = 8
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_DTYPES = {np.dtype(name) for name in ("uint8", "float16", "float32", "float64")}


def read_npy(content: bytes) -> NDArray[Any]:
    """The array of an npy file: uint8 or float16, float32, float64 of either byte order; read-only, native order.

    Raises:
        BadRequest: not an npy file, or its header does not fit its data.
        InvalidInput: an array of another data type.
    """
    stream = io.BytesIO(content)
    try:
        read_header = _HEADERS[npy.read_magic(stream)]
        with warnings.catch_warnings():  # numpy's warnings about a client's data do not belong in the log
            warnings.simplefilter("ignore")
            shape, fortran, dtype = read_header(stream, max_header_size=_HEADER_BYTES)
    except Exception:  # the header is a Python literal, whose parser raises many kinds of errors
        raise BadRequest("not an npy file of version 1 or 2") from None
    native = dtype.newbyteorder("=")
    if native not in _DTYPES:
        raise InvalidInput("an npy array must be uint8, float16, float32 or float64")
    # Each size is bounded, too: if one of them is zero, the product fits for any others.
    is_valid = len(shape) <= _DIMENSIONS and all(type(size) is int and 0 <= size <= len(content) for size in shape)
    if not is_valid or len(content) - stream.tell() != math.prod(shape) * dtype.itemsize:
        raise BadRequest("an npy file whose data has another length than its header says")
    array = np.frombuffer(content, dtype, offset=stream.tell())
    return array.reshape(shape, order="F" if fortran else "C").astype(native, copy=False)


def write_npy(array: NDArray[Any]) -> bytes:
    """An npy file of version 1."""
    array = np.ascontiguousarray(array)
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, npy.header_data_from_array_1_0(array))
    # numpy's write_array copies the data piece by piece, which is six times slower.
    return b"".join((stream.getvalue(), array.data))


def write_npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    """An npz file, stored without compression."""
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()
