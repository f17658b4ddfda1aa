"""The parts of an image file, found without decoding a pixel: its size, its cost, and what a decoder needs of it.

Decoders read metadata in Python, and keep it all: text and profiles that unpack to many times their size, EXIF entries
that each name the same megabyte, a million comments. None of it changes a pixel but the orientation. So every file is
taken apart here, in a bounded number of steps, and a decoder gets only the parts that make its pixels.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from app.errors import InvalidInput

MAX_PARTS = 16_384
"""Maximum chunks, segments or blocks of the files of a request, and one more for each 256 bytes; cameras write a few
dozen. The data blocks of a GIF are counted apart."""
MAX_SCANNED_PIXELS = 2**29
"""Maximum pixels of a JPEG, each counted once for every scan; see `MAX_SCANS`."""
MAX_SCANS = 100
"""Maximum scans of a progressive JPEG; about ten are usual. One more costs 30 bytes, and a pass over every pixel."""

_SECONDS_PER_BYTE, _SECONDS_PER_SCANNED_PIXEL = 1e-8, 3e-9
_MAX_EXIF_ENTRIES = 1000
_EXIF, _ORIENTATION = b"Exif\0\0", 0x0112
_MAX_FILL = 64
"""Maximum fill bytes in front of a JPEG marker; encoders write none."""
_TOO_MUCH_FILL = b"\xff" * (_MAX_FILL + 1)
_SEARCHED_AT_ONCE = 2**20
"""Bytes that are searched for a marker at a time; no other thread can run meanwhile."""
_MIN_GIF_BLOCK = 32
"""Minimum bytes that the data blocks of a GIF have on average; encoders write blocks of 255."""


class Structure(NamedTuple):
    """What the parts of an image file tell."""

    content: bytes
    """The file without the parts that change no pixel."""
    width: int
    height: int
    orientation: int = 1
    """EXIF orientation, 1 to 8; 1 is upright."""
    is_animated: bool = False
    seconds: float = 0.0
    """Estimated seconds to decode it on one core."""
    memory: int = 0
    """Estimated bytes of memory while it is decoded; 0 before it is surveyed."""


class Parts:
    """Counts the parts of the files of a request."""

    def __init__(self, size: int, bytes_per_part: int = 256) -> None:
        """`size` is the bytes of all files."""
        self._left = MAX_PARTS + size // bytes_per_part

    def count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise InvalidInput("an image file of too many parts")


def read_structure(content: bytes, parts: Parts) -> Structure | None:
    """The structure of a PNG, JPEG, GIF or WebP file, or None for any other file.

    If a part is damaged, the decoder finds it. Each step is counted in `parts`.

    Raises:
        InvalidInput: the file ends too early, or has too many parts or scans.
    """
    for signature, (read, seconds_per_pixel) in _READERS.items():
        if content.startswith(signature):
            try:
                found = read(content, parts)
            except (IndexError, struct.error):  # it ends too early
                raise InvalidInput("a damaged or truncated image") from None
            pixels = found.width * found.height
            return found._replace(seconds=found.seconds + len(content) * _SECONDS_PER_BYTE + pixels * seconds_per_pixel)
    return None


_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}


def _read_png(content: bytes, parts: Parts) -> Structure:
    """https://www.w3.org/TR/png-3/, section 5. The content has only the first frame."""
    view, kept, at = memoryview(content), [memoryview(_PNG)], len(_PNG)
    width, height, bits, color = struct.unpack_from(">IIBB", content, 16)
    orientation, frames = 1, 1
    while at < len(content):
        parts.count()
        kind, end = content[at + 4 : at + 8], at + 12 + int.from_bytes(content[at : at + 4])
        if kind == b"tRNS" and color == 0 and bits in (1, 2, 4, 8) and end - at == 14:
            kept.append(memoryview(_eight_bit_key(content, at + 8, bits)))
        elif kind in _PNG_KEPT:
            kept.append(view[at:end])
        elif kind == b"eXIf":
            orientation = _orientation(view[at + 8 : end - 4])
        if kind == b"acTL":
            frames = int.from_bytes(content[at + 8 : at + 12])
        at = end
        if kind == b"IEND":
            break
    return Structure(b"".join(kept), width, height, orientation, frames > 1)


def _eight_bit_key(content: bytes, at: int, bits: int) -> bytes:
    """The chunk of the transparent gray of a PNG of up to 8 bits, scaled to 8: Pillow scales only the pixels."""
    largest: int = 2**bits - 1
    part: bytes = b"tRNS" + ((int.from_bytes(content[at : at + 2]) & largest) * 255 // largest).to_bytes(2)
    return (2).to_bytes(4) + part + zlib.crc32(part).to_bytes(4)


JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", 0xDA, 0xD9
_STANDALONE = {0x01, *range(0xD0, 0xDA)}
_JPEG_KEPT = {*range(0xC0, 0xD0), 0xDB, 0xDC, 0xDD, 0xE0, 0xEE}  # frames and tables, and the APPs that name the colors
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_MARKER_IN_SCANS = re.compile(rb"\xff[\xc0-\xcf\xd9-\xfe]")
"""The next marker behind the data of a scan; restarts (D0 to D7) belong to the data."""


def _read_jpeg(content: bytes, parts: Parts) -> Structure:
    """ITU-T T.81, annex B. Phones append images to a JPEG and list them in a segment, which is left out."""
    view, kept, at = memoryview(content), [memoryview(JPEG)], len(JPEG)
    width = height = scans = orientation = 0
    while (at := content.find(b"\xff", at)) >= 0:
        parts.count()
        marker_at = next((i for i in range(at + 1, at + 1 + _MAX_FILL) if content[i] != 0xFF), None)
        if marker_at is None:
            raise InvalidInput("a damaged or truncated image")
        marker = content[marker_at]
        if marker == _JPEG_SCAN:
            end, scans = _jpeg_scans(content, marker_at + 1, parts)
            if (
                content.find(_TOO_MUCH_FILL, at, end) >= 0
            ):  # decoders begin such a run anew with each piece that they read
                raise InvalidInput("a damaged or truncated image")
            kept.append(view[marker_at - 1 : end])
            break
        at = marker_at + 1
        if marker == 0 or marker in _STANDALONE:
            continue
        end = at + int.from_bytes(content[at : at + 2])
        if marker in _JPEG_KEPT:
            kept.append(view[marker_at - 1 : end])
        elif marker == 0xE1 and not orientation and content.startswith(_EXIF, at + 2):
            orientation = _orientation(view[at + 2 : end])
        if marker in _FRAMES and not width:
            bits, height, width = struct.unpack_from(">BHH", content, at + 2)
            if bits != 8:
                raise InvalidInput("a JPEG of another depth than 8 bits")
        at = max(end, at + 2)
    if scans > MAX_SCANS or scans * width * height > MAX_SCANNED_PIXELS:
        raise InvalidInput(f"a JPEG of more than {MAX_SCANS} scans, or of too many for its size")
    seconds = scans * width * height * _SECONDS_PER_SCANNED_PIXEL
    return Structure(b"".join(kept), width, height, orientation or 1, seconds=seconds)


def _jpeg_scans(content: bytes, at: int, parts: Parts) -> tuple[int, int]:
    """Where the image ends whose first scan begins at `at`, and its scans; what follows is another image, or a film."""
    scans, at = 1, at + int.from_bytes(content[at : at + 2])
    while at < len(content):
        found = _MARKER_IN_SCANS.search(content, at, at + _SEARCHED_AT_ONCE)
        stop = at + _SEARCHED_AT_ONCE - 1 if found is None else found.start()
        if content.find(_TOO_MUCH_FILL, at, stop) >= 0:  # decoders read such a run anew with each piece of a file
            raise InvalidInput("a damaged or truncated image")
        at = stop
        if found is None:
            continue
        parts.count()
        marker, at = content[found.start() + 1], found.end()
        if marker == _JPEG_END:
            return at, scans
        scans += marker == _JPEG_SCAN
        at += int.from_bytes(content[at : at + 2])
    return len(content), scans


_GIF_EXTENSION, _GIF_IMAGE, _GIF_END = 0x21, 0x2C, 0x3B
_GIF_GRAPHIC_CONTROL = 0xF9


def _read_gif(content: bytes, parts: Parts) -> Structure:
    """https://www.w3.org/Graphics/GIF/spec-gif89a.txt. The content has only the first frame."""
    blocks = Parts(len(content), _MIN_GIF_BLOCK)
    width, height = struct.unpack_from("<HH", content, 6)
    at = 13 + _gif_colors(content[10])
    kept, images = [content[:at]], 0
    while at < len(content) and content[at] != _GIF_END and images < 2:
        parts.count()
        start, kind = at, content[at]
        if kind == _GIF_IMAGE:
            images += 1
            left, top, across, down = struct.unpack_from("<HHHH", content, at + 1)
            if images == 1:
                width, height = max(width, left + across), max(height, top + down)
            at += 10 + _gif_colors(content[at + 9]) + 1
        elif kind == _GIF_EXTENSION:
            at += 2
        else:  # decoders skip what they do not know
            at += 1
            continue
        while size := content[at]:
            blocks.count()
            at += size + 1
            if at >= len(content):  # cut off: the decoder finds it
                break
        at += 1
        is_control = kind == _GIF_EXTENSION and content[start + 1] == _GIF_GRAPHIC_CONTROL and content[start + 2] > 0
        if images < 2 and (kind == _GIF_IMAGE or is_control):  # of an empty block, Pillow misses the end
            kept.append(content[start:at])
    return Structure(b"".join(kept) + bytes((_GIF_END,)), width, height, is_animated=images > 1)


def _gif_colors(flags: int) -> int:
    """Bytes of the color table that the flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


WEBP = b"RIFF"
"""The first bytes of a WebP, and of other formats that no decoder here reads."""


def _read_webp(content: bytes, parts: Parts) -> Structure:
    """RFC 9649. Its decoder unpacks no metadata, so the content is the whole file."""
    width = height = frames = 0
    orientation = 1
    for kind, data in _riff_chunks(content, parts):
        if kind == b"VP8X" and not width:
            width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (4, 7))
        elif kind == b"VP8 " and not width:
            width, height = (size & 0x3FFF for size in struct.unpack_from("<HH", data, 6))
        elif kind == b"VP8L" and not width:
            bits = int.from_bytes(data[1:5], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"EXIF":
            orientation = _orientation(data)
        frames += kind == b"ANMF"
    return Structure(content, width, height, orientation, frames > 1)


def _riff_chunks(content: bytes, parts: Parts) -> Iterator[tuple[bytes, memoryview]]:
    view, at = memoryview(content)[: 8 + int.from_bytes(content[4:8], "little")], 12
    while at + 8 <= len(view):
        parts.count()
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        yield content[at : at + 4], view[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _orientation(exif: memoryview) -> int:
    """The orientation in an EXIF block, from its first directory; 1 if it has none, or none that is valid.

    The block is a TIFF header and its directories (TIFF 6.0, section 2), which may have a prefix.
    """
    if exif[: len(_EXIF)] == _EXIF:
        exif = exif[len(_EXIF) :]
    order = {b"II": "<", b"MM": ">"}.get(bytes(exif[:2]))
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, start)
        for index in range(min(entries, _MAX_EXIF_ENTRIES)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * index)
            if tag == _ORIENTATION:
                return value if kind == 3 and 1 <= value <= 8 else 1
    except struct.error:  # it ends too early
        pass
    return 1


_READERS: dict[bytes, tuple[Callable[[bytes, Parts], Structure], float]] = {
    _PNG: (_read_png, 8e-9),
    JPEG: (_read_jpeg, 4e-9),
    b"GIF87a": (_read_gif, 10e-9),
    b"GIF89a": (_read_gif, 10e-9),
    WEBP: (_read_webp, 40e-9),
}
"""By the first bytes of a file: its reader, and the seconds per pixel to decode it, measured on noise."""
