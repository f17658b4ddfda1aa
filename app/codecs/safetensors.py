"""safetensors files <-> arrays: the library checks the header against the number of bytes."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save

from app.codecs.tensors import of_bytes
from app.errors import BadRequest, InvalidInput

SAFETENSORS = "application/x-safetensors"

_MAX_HEADER_BYTES = 65_536
"""Maximum header: a longer one could list too many tensors to read in time."""
_LENGTH_BYTES = 8
_DTYPES = {"U8": "uint8", "F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16"}


def read_safetensors(content: bytes, name: str) -> NDArray[Any]:
    """The tensor `name` of a safetensors file, read-only: uint8, float16, float32, float64, or bfloat16 as float32.

    Raises:
        BadRequest: not a safetensors file.
        InvalidInput: it has no such tensor, or one without values or of another data type.
    """
    try:
        if int.from_bytes(content[:_LENGTH_BYTES], "little") > _MAX_HEADER_BYTES:
            raise SafetensorError("a long header")
        tensors = dict(deserialize(content))  # type: ignore[no-untyped-call]
    except SafetensorError:
        raise BadRequest(f"not a safetensors file with a header of at most {_MAX_HEADER_BYTES} bytes") from None
    if name not in tensors:
        raise InvalidInput(f"the file has no tensor `{name}`")
    tensor = tensors[name]
    if tensor["dtype"] not in _DTYPES:
        raise InvalidInput(f"`{name}` must be {', '.join(_DTYPES)}")
    return of_bytes(tensor["data"], _DTYPES[tensor["dtype"]], tensor["shape"])


def write_safetensors(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of arrays, with strings by name in its metadata; the same bytes each time."""
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, dict(metadata))
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(content[_LENGTH_BYTES:end])
    header["__metadata__"] = dict(sorted(metadata.items()))  # the library's order varies
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return content[:_LENGTH_BYTES] + text.ljust(end - _LENGTH_BYTES) + content[end:]
