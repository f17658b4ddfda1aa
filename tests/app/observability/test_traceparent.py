"""Which headers name a trace."""

import pytest

from app.observability.traceparent import trace_id

TRACE, PARENT = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"


@pytest.mark.parametrize("header", [b"00-%b-%b-01", b"00-%b-%b-00", b"cc-%b-%b-01", b"cc-%b-%b-01-what-comes-later"])
def test_a_header_of_this_and_of_later_versions(header: bytes) -> None:
    assert trace_id(header % (TRACE, PARENT)) == TRACE.decode()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"00-%b-%b" % (TRACE, PARENT),
        b"00-%b-%b-01-more" % (TRACE, PARENT),
        b"cc-%b-%b-01more" % (TRACE, PARENT),
        b"ff-%b-%b-01" % (TRACE, PARENT),
        b"00-%b-%b-01" % (b"0" * 32, PARENT),
        b"00-%b-%b-01" % (TRACE, b"0" * 16),
        b"00-%b-%b-01" % (TRACE.upper(), PARENT),
        b"00-%b-%b-01\n" % (TRACE, PARENT),
        b"\xff" * 55,
    ],
)
def test_what_is_none(header: bytes) -> None:
    assert trace_id(header) is None
