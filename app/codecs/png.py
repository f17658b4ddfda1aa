"""Plain PNG files without Pillow, many times as fast: extracts their data, and writes gray images."""

import struct
import zlib
from functools import lru_cache
from typing import Literal

import numpy as np

from app.maths.arrays import Pixels

END = b"IEND\xaeB`\x82"
"""Type and checksum of the last chunk, which has no data."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END_CHUNK = b"\x00\x00\x00\x00" + END
_HEADER = struct.Struct(">IIBBBBB")  # width, height, bits, color type, compression, filter, interlace
_COLOR_TYPES = {"L": 0, "RGB": 2}
_MAX_STORED_BYTES = 1024
"""Maximum bytes of image data that are stored without compression: the file still fits into one network packet."""


def plain_data(content: bytes, height: int, width: int, mode: Literal["L", "RGB"]) -> bytes | None:
    """The compressed data of a plain PNG of this size and mode; None for any other file.

    A plain PNG has 8 bits per channel, is not interlaced, and has no chunks but its header, one of data, and the end.
    """
    start = _start(height, width, mode)
    kind = len(start) + 4
    end = kind + 4 + int.from_bytes(content[len(start) : kind])
    if (
        not content.startswith(start)
        or content[kind : kind + 4] != b"IDAT"
        or content[end + 4 :] != _END_CHUNK
        or zlib.crc32(content[kind:end]) != int.from_bytes(content[end : end + 4])
    ):
        return None
    return content[kind + 4 : end]


def write_gray(pixels: Pixels) -> bytes:
    """A gray PNG of `[H, W]`, without row filters: small images are stored, others run-length encoded.

    This takes a tenth of Pillow's time, for a digit and for a grid of 64; see docs/performance.md.
    """
    height, width = pixels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each begins with its filter type: none
    rows[:, 1:] = pixels
    data = rows.tobytes()
    if len(data) <= _MAX_STORED_BYTES:
        compressed = zlib.compress(data, 0)
    else:
        compressor = zlib.compressobj(1, strategy=zlib.Z_RLE)
        compressed = compressor.compress(data) + compressor.flush()
    return _start(height, width, "L") + _chunk(b"IDAT", compressed) + _END_CHUNK


@lru_cache(256)
def _start(height: int, width: int, mode: str) -> bytes:
    """The bytes of a plain PNG up to its data."""
    return _SIGNATURE + _chunk(b"IHDR", _HEADER.pack(width, height, 8, _COLOR_TYPES[mode], 0, 0, 0))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return b"".join(
        (len(content).to_bytes(4), kind, content, zlib.crc32(content, zlib.crc32(kind)).to_bytes(4)),
    )
