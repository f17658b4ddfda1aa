"""Image files that are valid, or nearly so, and cost their reader far more than their size lets expect."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SIDE = 32
RAMP = np.linspace(0, 255, SIDE * SIDE).astype(np.uint8).reshape(SIDE, SIDE)
"""What the files show that are read."""


def saved(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(chunks: bytes) -> bytes:
    """The ramp, with chunks in front of its data."""
    content = saved(Image.fromarray(RAMP), "PNG")
    at = content.index(b"IDAT") - 4
    return content[:at] + chunks + content[at:]


def huge_png(width: int, height: int, *, color: int = 6, interlaced: bool = False) -> bytes:
    """A PNG of one value: a few kilobytes for millions of pixels. `color` is 6 for RGBA, 2 for RGB, 0 for gray."""
    channels = {0: 1, 2: 3, 6: 4}[color]
    passes = (
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
        if interlaced
        else [(0, 0, 1, 1)]
    )
    compressor, data = zlib.compressobj(9), b""
    for left, top, across, down in passes:
        columns, rows = len(range(left, width, across)), len(range(top, height, down))
        for _ in range(rows if columns else 0):
            data += compressor.compress(b"\0" + b"\x80" * (columns * channels))
    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, int(interlaced))
    return PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", data + compressor.flush()) + chunk(b"IEND", b"")


def exif_bomb(entries: int, size: int, orientation: int = 1) -> bytes:
    """A TIFF directory each of whose entries names the same `size` bytes; the first is the orientation."""
    directory = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    for tag in range(1000, 1000 + entries - 1):
        directory += struct.pack("<HHII", tag, 7, size, 8 + 2 + 12 * entries + 4)
    return b"II*\0" + struct.pack("<IH", 8, entries) + directory + bytes(4 + size)


def jpeg_with(segments: bytes, **options: Any) -> bytes:
    """The ramp, with segments behind its start."""
    content = saved(Image.fromarray(RAMP), "JPEG", **{"quality": 95} | options)
    return content[:2] + segments + content[2:]


def segment(marker: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG of one value; one of its scans is repeated."""
    content = saved(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * (scans - content.count(b"\xff\xda") + 1) + content[-2:]


def _filled(size: int) -> bytes:
    """A JPEG with fill bytes in front of its end."""
    content = jpeg_with(b"")
    return content[:-2] + b"\xff" * size + content[-2:]


def gif_with(blocks: bytes, data_block: int = 255) -> bytes:
    """The ramp, with blocks in front of the image and its data in blocks of `data_block` bytes."""
    content = saved(Image.fromarray(RAMP), "GIF", comment=b"")
    at = 13 + 3 * 2 ** ((content[10] & 7) + 1)
    image = content.index(b",", at)
    head, data, start = content[image : image + 11], b"", image + 11
    while size := content[start]:
        data += content[start + 1 : start + 1 + size]
        start += size + 1
    pieces = [data[i : i + data_block] for i in range(0, len(data), data_block)]
    return content[:at] + blocks + head + b"".join(bytes((len(it),)) + it for it in pieces) + b"\0;"


def riff(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def webp_with(chunks: bytes) -> bytes:
    """The ramp, with chunks behind its own."""
    body = saved(Image.fromarray(RAMP).convert("RGB"), "WEBP", lossless=True, exif=b"Exif\0\0II*\0")[12:] + chunks
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def read() -> Iterator[tuple[str, bytes]]:
    """Files that show the ramp, whatever is around it."""
    text = zlib.compress(bytes(2**20), 9)
    yield (
        "PNG of 200 texts of a megabyte each",
        png_with(b"".join(chunk(b"zTXt", b"key%d\0\0" % i + text) for i in range(200))),
    )
    yield "PNG with a color profile of 64 MB", png_with(chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(2**26), 9)))
    yield (
        "PNG with an international text of 64 MB",
        png_with(chunk(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(bytes(2**26), 9))),
    )
    yield "PNG with a wrong checksum of a text", png_with(chunk(b"tEXt", b"a\0b")[:-1] + b"x")
    yield "PNG with 60,000 EXIF entries of 200 KB", png_with(chunk(b"eXIf", exif_bomb(60_000, 200_000)))
    yield "JPEG with 4,000 EXIF entries of 15 KB", jpeg_with(segment(0xE1, b"Exif\0\0" + exif_bomb(4000, 15_000)))
    yield "JPEG with 400 profiles", jpeg_with(segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(65_000)) * 400)
    yield (
        "JPEG with 2 million Photoshop entries",
        jpeg_with(segment(0xED, b"Photoshop 3.0\0" + b"8BIM\0\1\0\0\0\0\0\0" * 5000) * 400),
    )
    yield "JPEG with 30 MB of junk", jpeg_with(bytes(30_000_000))
    yield "JPEG with a film behind it", jpeg_with(b"") + b"\xff\xda\0\0" * 1_000_000
    yield "GIF with 1,000 comments", gif_with(b"!\xfe\x05hello\0" * 1000)
    yield "GIF with an empty control block", gif_with(b"!\xf9\0")
    yield "GIF of blocks of 32 bytes", gif_with(b"", 32)
    yield "WebP with 1,000 chunks", webp_with(riff(b"junk", b"") * 1000)


def refused() -> Iterator[tuple[str, bytes]]:
    """Files with more parts, fill bytes or scans than a decoder should look at."""
    yield "PNG of 2 million texts", png_with(chunk(b"tEXt", b"a\0b") * 2_000_000)
    yield "PNG of a million pieces of data", png_with(chunk(b"IDAT", b"") * 1_000_000)
    yield "JPEG with 23 MB of fill bytes", jpeg_with(b"\xff" * 23_000_000)
    yield "JPEG with 16 MB of fill bytes behind its first scan", _filled(16_000_000)
    yield "JPEG with 5 million comments", jpeg_with(segment(0xFE, b"") * 5_000_000)
    yield "JPEG with 5 million escapes", jpeg_with(b"\xff\0" * 5_000_000)
    yield "JPEG of 101 scans", many_scans(64, 101)
    yield "JPEG of 100 scans of 16 million pixels", many_scans(4096, 100)
    yield "GIF with 2 million comments", gif_with(b"!\xfe\x01a\0" * 2_000_000)
    yield "GIF with a comment of a million blocks", gif_with(b"!\xfe" + b"\x01a" * 1_000_000 + b"\0")
    yield "GIF with 10 million unknown bytes", gif_with(b"\x01" * 10_000_000)
    yield "GIF of 5 million pieces of data", gif_with(b"")[:-2] + b"\x01a" * 5_000_000 + b"\0;"
    yield "WebP with a million chunks", webp_with(riff(b"junk", b"") * 1_000_000)


def large() -> Iterator[tuple[str, bytes]]:
    """Files of as many pixels as a request may have, in every way in which a pixel costs."""
    yield "RGBA PNG", huge_png(4096, 4096)
    yield "RGB PNG of a long side", huge_png(65_535, 256, color=2)
    yield "interlaced PNG", huge_png(4096, 4096, color=2, interlaced=True)
    yield (
        "PNG of a palette with transparency",
        saved(Image.new("P", (4096, 4096)), "PNG", transparency=bytes(range(256)), compress_level=9),
    )
    yield "16-bit PNG", saved(Image.fromarray(np.zeros((4096, 4096), np.uint16)), "PNG", compress_level=9)
    yield (
        "JPEG on its side",
        saved(Image.new("RGB", (4096, 4096)), "JPEG", exif=b"Exif\0\0" + exif_bomb(1, 0, orientation=6)),
    )
    yield "CMYK JPEG", saved(Image.new("CMYK", (4096, 4096)), "JPEG", progressive=True)
    yield "JPEG of 30 scans", many_scans(4096, 30)
    yield "WebP with transparency", saved(Image.new("RGBA", (4096, 4096), (1, 2, 3, 4)), "WEBP", method=0)
    yield "GIF", saved(Image.new("P", (4096, 4096)), "GIF")
