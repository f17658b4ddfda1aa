"""Tensors on the wire: JSON numbers and raw bytes, well-formed and hostile."""

import math
import tracemalloc
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from app.codecs.tensors import DATATYPES, of_bytes, of_json, split_header, split_tensors, to_bytes
from app.errors import BadRequest, InvalidInput, VaeError

TYPES = list(DATATYPES.values())


def arrays() -> st.SearchStrategy[NDArray[Any]]:
    return st.sampled_from(TYPES).flatmap(
        lambda name: npst.arrays(
            name,
            npst.array_shapes(max_dims=4, max_side=4),
            elements={"allow_nan": False, "allow_infinity": False} if name.startswith("f") else None,
        )
    )


@given(arrays())
def test_arrays_come_back_from_json_flat_and_nested(array: NDArray[Any]) -> None:
    for data in (array.ravel().tolist(), array.tolist()):
        read = of_json(data, str(array.dtype), array.shape)
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        assert np.array_equal(read, array)


@given(arrays())
def test_arrays_come_back_from_bytes(array: NDArray[Any]) -> None:
    for content in (array.astype(array.dtype.newbyteorder("<")).tobytes(), to_bytes(array)):
        read = of_bytes(memoryview(content), str(array.dtype), array.shape)
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        assert np.array_equal(read, array)


def test_strides_and_byte_order_do_not_show() -> None:
    array = np.arange(24, dtype=">f4").reshape(2, 3, 4).transpose(2, 0, 1)
    assert np.array_equal(of_bytes(to_bytes(array), "float32", (4, 2, 3)), array)


@given(npst.arrays(np.uint16, 50))
def test_bfloat16_is_read_as_pytorch_writes_it(words: NDArray[np.uint16]) -> None:
    tensor = torch.from_numpy(words.view(np.int16)).view(torch.bfloat16)
    read = of_bytes(words.astype("<u2").tobytes(), "bfloat16", (50,))
    assert np.array_equal(read, tensor.float().numpy(), equal_nan=True)


@given(npst.arrays(np.float32, 50, elements={"allow_nan": False}))
def test_bfloat16_is_rounded_as_pytorch_rounds(array: NDArray[np.float32]) -> None:
    expected = torch.from_numpy(array).to(torch.bfloat16).view(torch.int16).numpy()
    assert to_bytes(array, "bfloat16") == expected.tobytes()


@pytest.mark.parametrize("value", [True, None, "1", [1], {}, float("nan"), float("inf"), 10**400])
@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_no_finite_number_is_refused(value: Any, dtype: str) -> None:
    with pytest.raises(InvalidInput):
        of_json([0, value], dtype, (2,))


@pytest.mark.parametrize(
    ("value", "dtype"), [(-1, "uint8"), (256, "uint8"), (0.5, "uint8"), (1e5, "float16"), (1e39, "float32")]
)
def test_what_a_type_does_not_hold_is_refused(value: float, dtype: str) -> None:
    with pytest.raises(InvalidInput):
        of_json([value], dtype, (1,))


def test_whole_floats_are_integers() -> None:
    assert of_json([1.0, 255.0], "uint8", (2,)).tolist() == [1, 255]


@pytest.mark.parametrize(
    "data",
    [[], [1], [1] * 5, [[1, 2]], [[1, 2], [3]], [[1, 2], 3], [1, [2, 3], 4, 5], [[[1, 2], [3, 4]]], [[1, 2], [3, [4]]]],
)
def test_other_nesting_and_counts_are_refused(data: list[Any]) -> None:
    with pytest.raises(InvalidInput):
        of_json(data, "float32", (2, 2))


SHAPES = st.lists(st.integers(0, 2**70), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@given(data=st.lists(JSON, max_size=5), dtype=st.sampled_from(TYPES), shape=SHAPES)
def test_nothing_but_invalid_input_is_raised_of_json(data: list[Any], dtype: str, shape: list[int]) -> None:
    with suppress(InvalidInput):
        assert of_json(data, dtype, shape).shape == tuple(shape)


@given(content=st.binary(max_size=40), dtype=st.sampled_from([*TYPES, "bfloat16"]), shape=SHAPES)
def test_nothing_but_invalid_input_is_raised_of_bytes(content: bytes, dtype: str, shape: list[int]) -> None:
    size = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
    fits = 1 <= len(shape) <= 8 and 0 < len(content) == math.prod(shape) * size
    try:
        assert of_bytes(content, dtype, shape).shape == tuple(shape)
        assert fits
    except InvalidInput:
        assert not fits


def test_a_shape_of_more_than_there_is_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        for shape in ([2**40], [2**20, 2**20, 2**20], [1] * 100, [2**60, 0]):
            with pytest.raises(InvalidInput):
                of_bytes(b"1234", "float32", shape)
            with pytest.raises(InvalidInput):
                of_json([1.0], "float32", shape)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@given(content=st.binary(max_size=50), length=st.none() | st.integers(-5, 60).map(str) | st.text(max_size=30))
def test_the_header_splits_or_is_refused(content: bytes, length: str | None) -> None:
    encoded = None if length is None else length.encode()
    try:
        head, binary = split_header(content, encoded)
    except BadRequest:
        assert encoded is not None
        assert not encoded.isdigit() or int(encoded) > len(content)
        return
    assert bytes(head) + bytes(binary) == content
    assert len(head) == (len(content) if length is None else int(length))


@pytest.mark.parametrize(
    "length", [b"", b"-1", b"+1", b"1_0", b" 1", b"1.0", b"0x1", b"11", b"9" * 5000, "\u0661".encode()]
)
def test_lengths_that_are_none(length: bytes) -> None:
    with pytest.raises(BadRequest):
        split_header(b"0123456789", length)


@given(content=st.binary(max_size=50), sizes=st.lists(st.integers(0, 2**70) | st.integers(0, 20), max_size=5))
def test_tensors_are_all_that_follows_or_refused(content: bytes, sizes: list[int]) -> None:
    try:
        pieces = split_tensors(memoryview(content), sizes)
    except VaeError:
        assert sum(sizes) != len(content)
        return
    assert b"".join(pieces) == content
    assert [len(piece) for piece in pieces] == sizes
