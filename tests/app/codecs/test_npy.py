"""npy and npz, with hostile headers."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.codecs.npy import read_npy, write_npy, write_npz
from app.errors import BadRequest, InvalidInput
from tests.conftest import load_npz, npy

arrays = hnp.arrays(
    st.sampled_from(["u1", "<f2", "<f4", ">f4", "<f8"]),
    hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5),
    elements=st.integers(0, 9),
)


@given(arrays)
def test_arrays_survive(array: np.ndarray) -> None:
    for content in (npy(array), npy(np.asfortranarray(array))):
        back = read_npy(content)
        assert back.dtype == array.dtype.newbyteorder("=")
        assert np.array_equal(back, array)


def test_numpy_reads_what_is_written() -> None:
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert np.array_equal(np.load(io.BytesIO(write_npy(array))), array)
    assert np.array_equal(np.load(io.BytesIO(write_npy(array.T))), array.T)
    assert load_npz(write_npz({"a": array, "b": array + 1}))["b"].tolist() == [[1, 2, 3], [4, 5, 6]]


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text.encode()


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,)}\n"

UNPARSEABLE = {
    "empty": b"",
    "junk": b"junk",
    "magic alone": b"\x93NUMPY\x01\x00",
    "version 9": header(GOOD % 1, b"\x09\x00") + bytes(4),
    "not a literal": header("{'descr': open('x')}"),
    "deep nesting": header("(" * 4000),
    "longer header than allowed": header(GOOD % 1 + " " * 5000),
    "too little data": header(GOOD % 10) + bytes(4),
    "too much data": npy(np.zeros(3)) + b"x",
    "huge shape": header(GOOD % 10**18),
    "negative shape": header(GOOD % -1),
    "huge shape times zero": header(GOOD.replace("%s,", f"{10**30}, 0")),
    "more dimensions than numpy has": header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'1,' * 100})}}")
    + bytes(4),
    "booleans for sizes": header("{'descr': '<f4', 'fortran_order': False, 'shape': (True, True)}") + bytes(4),
}


@pytest.mark.parametrize("kind", UNPARSEABLE)
def test_what_is_no_npy_is_unparseable(kind: str) -> None:
    with pytest.raises(BadRequest):
        read_npy(UNPARSEABLE[kind])


def objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


OTHER_TYPES = [
    objects(),
    npy(np.zeros(3, np.int64)),
    npy(np.array(["a"])),
    npy(np.zeros(2, "c8")),
    npy(np.zeros(2, "f4,u1")),
]


@pytest.mark.parametrize("content", OTHER_TYPES)
def test_other_data_types_are_invalid(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="must be uint8"):
        read_npy(content)


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    for content in (noise, b"\x93NUMPY\x01\x00" + noise):
        with pytest.raises((BadRequest, InvalidInput)):
            read_npy(content)
