"""Content codings: gzip and deflate bodies inflated up to a limit, answers compressed where asked. Stdlib only."""

import re
import zlib

from app.errors import BadRequest, BodyTooLarge, UnsupportedMediaType

_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""zlib's names of the formats; `deflate` is its own (RFC 9110), not the bare stream."""
_LEVEL = 1
"""Three times as fast as zlib's default, for answers that are a tenth larger."""

_REFUSED = re.compile(r"q=0(\.0*)?")


def inflate(content: bytes, coding: str, limit: int) -> bytes:
    """What is in a body of this coding, which is `identity`, `gzip` or `deflate`; never more than `limit` bytes of it
    are made.

    Raises:
        UnsupportedMediaType: another coding.
        BadRequest: damaged, truncated, or followed by something else, be it another stream: millions fit into a body.
        BodyTooLarge: more than `limit` bytes.
    """
    if coding == "identity":
        return content
    if coding not in _WINDOW:
        raise UnsupportedMediaType("send the body as it is, or with Content-Encoding gzip or deflate")
    stream = zlib.decompressobj(_WINDOW[coding])
    try:
        inflated = stream.decompress(content, limit + 1)
    except zlib.error:
        raise BadRequest(f"the body is not {coding}") from None
    if len(inflated) > limit:
        raise BodyTooLarge(f"at most {limit} bytes, inflated")
    if not stream.eof or stream.unused_data:
        raise BadRequest(f"the body is not one whole {coding} stream")
    return inflated


def wanted_coding(accepted: str) -> str | None:
    """The coding that an `Accept-Encoding` header asks for by name: gzip before deflate; None for neither."""
    named = set()
    for item in accepted.lower().replace(" ", "").split(","):
        name, _, weight = item.partition(";")
        if not _REFUSED.fullmatch(weight):
            named.add(name)
    return next((coding for coding in _WINDOW if coding in named), None)


def compress(content: bytes, coding: str) -> bytes:
    """An answer in a coding, `gzip` or `deflate`."""
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW[coding])
    return stream.compress(content) + stream.flush()
