"""Bodies inflated up to a limit, and answers compressed for those who ask."""

import gzip
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.v2.content_encoding import compress, inflate, wanted_coding
from app.errors import BadRequest, BodyTooLarge, UnsupportedMediaType, VaeError

PACKED = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("coding", PACKED)
@given(content=st.binary(max_size=3000))
def test_what_was_compressed_comes_back(coding: str, content: bytes) -> None:
    assert inflate(PACKED[coding](content), coding, 3000) == content
    assert inflate(compress(content, coding), coding, 3000) == content
    unpacked = gzip.decompress if coding == "gzip" else zlib.decompress
    assert unpacked(compress(content, coding)) == content


@pytest.mark.parametrize("coding", PACKED)
def test_the_limit_is_of_what_is_inflated(coding: str) -> None:
    assert len(inflate(PACKED[coding](bytes(1000)), coding, 1000)) == 1000
    with pytest.raises(BodyTooLarge):
        inflate(PACKED[coding](bytes(1001)), coding, 1000)


@pytest.mark.parametrize("coding", PACKED)
def test_a_bomb_takes_no_more_memory_than_the_limit(coding: str) -> None:
    bomb = PACKED[coding](bytes(2**27))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            inflate(bomb, coding, 2**20)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coding", PACKED)
def test_damaged_truncated_and_followed_bodies_are_refused(coding: str) -> None:
    whole = PACKED[coding](b"x" * 500)
    for body in (b"", whole[:-1], whole + b"x", whole + whole, b"nonsense", whole[:10] + b"\xff" * 20):
        with pytest.raises(BadRequest):
            inflate(body, coding, 10_000)


@given(content=st.binary(max_size=200), coding=st.sampled_from(["gzip", "deflate", "identity", "br", ""]))
def test_nothing_else_is_raised(content: bytes, coding: str) -> None:
    with suppress(VaeError):
        inflate(content, coding, 100)


def test_other_codings_are_refused() -> None:
    for coding in ("br", "zstd", "gzip, gzip", "x-gzip"):
        with pytest.raises(UnsupportedMediaType):
            inflate(b"", coding, 100)


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("deflate, GZIP", "gzip"),
        ("gzip;q=0, deflate;q=0.5", "deflate"),
        ("gzip; q=0.000", None),
        ("gzip;q=0.001", "gzip"),
        ("br, zstd, *", None),
        ("identity", None),
    ],
)
def test_what_a_client_asks_for(accepted: str, coding: str | None) -> None:
    assert wanted_coding(accepted) == coding
