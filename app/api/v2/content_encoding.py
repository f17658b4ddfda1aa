"""Content-Encoding: decompress gzip and deflate bodies up to a limit, and compress responses."""

import zlib

from app.api.routing.negotiation import accepted
from app.errors import BadRequest, BodyTooLarge, UnsupportedMediaType

_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
"""The `wbits` of zlib for each content encoding; `deflate` is the zlib format (RFC 9110), not a raw deflate stream."""
_LEVEL = 1
"""Compression level: three times as fast as zlib's default, with output that is a tenth larger."""


def inflate(content: bytes, coding: str, limit: int) -> bytes:
    """Decompress a body with the Content-Encoding `coding`: `identity`, `gzip` or `deflate`.

    Raises:
        UnsupportedMediaType: `coding` is not one of these.
        BadRequest: the body is damaged, truncated, or more than one stream: one body can hold millions.
        BodyTooLarge: the decompressed body is larger than `limit` bytes; decompression stops there.
    """
    if coding == "identity":
        return content
    if coding not in _WINDOW:
        raise UnsupportedMediaType("send the body uncompressed, or with Content-Encoding gzip or deflate")
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


def wanted_coding(header: str) -> str | None:
    """The content encoding that the header Accept-Encoding names: gzip, else deflate, else None."""
    named = accepted(header)
    return next((coding for coding in _WINDOW if coding in named), None)


def compress(content: bytes, coding: str) -> bytes:
    """Compress a body with `coding`, `gzip` or `deflate`."""
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW[coding])
    return stream.compress(content) + stream.flush()
