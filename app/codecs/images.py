"""Bytes <-> pixels. The only file that imports PIL. Pixels are uint8 `[H, W, C]`, C = 1 (grey) or 3 (RGB)."""

import io
import math
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import get_ident
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps

from app.errors import InvalidInput
from app.maths.arrays import Pixels as Pixels

PictureFormat = Literal["png", "webp"]
AnimationFormat = Literal["png", "gif", "webp"]

# The dimensions are checked here, against a setting, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_PNG_LAST = b"\x00\x00\x00\x00" + _PNG_END
_PNG_HEADER = struct.Struct(">IIBBBBB")  # width, height, bits, colour, compression, filter, interlace
_ONE_PACKET = 1024
"""Bytes of data that go into one packet together with what is around them."""
_PNG_COLOR = {"L": 0, "RGB": 2}
_COLOR = re.compile("[a-z]+|#[0-9a-f]{3}|#[0-9a-f]{6}", re.IGNORECASE)

_JPEG_START, _JPEG_SCAN = b"\xff\xd8", b"\xff\xda"
MOST_SCANS = 100
"""Progressive pictures have ten or so. Thirty bytes make one more, which goes over every pixel once more."""

READERS = ("PNG", "JPEG", "WEBP", "GIF")
"""Pillow's names of the formats that are read. Nothing else is tried: Pillow's rare formats are its weak ones."""


@dataclass(frozen=True)
class Reading:
    """How pictures are read into a model's images."""

    height: int | None
    """None, as the width, where a picture keeps its own size: all of a request then have the same."""
    width: int | None
    mode: Literal["L", "RGB"]
    max_pixels: int
    """Most pixels of all pictures of a request, before and after they are resized."""
    multiple: int = 1
    """What a picture's own height and width are rounded down to, by resizing it."""
    background: tuple[int, int, int] = (0, 0, 0)
    """RGB under transparent pixels."""
    invert: bool = False
    """For black on white, where the model learnt white on black."""
    strict: bool = False
    """Refuse another size or mode instead of converting."""
    crop: bool = False
    """Keep the middle of a picture of another shape instead of stretching the whole."""
    first_frame: bool = False
    """Read the first frame of an animation instead of refusing it."""
    formats: tuple[str, ...] = READERS
    """Pillow's names of the formats that are read."""

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that a picture of this size gets."""
        if self.height is None or self.width is None:
            return max(width // self.multiple, 1) * self.multiple, max(height // self.multiple, 1) * self.multiple
        return self.width, self.height


def _open(content: bytes, budget: int, reading: Reading) -> Image.Image:
    """The picture in `content`, of at most `budget` pixels; its header is read, and nothing decoded yet."""
    try:
        image = Image.open(io.BytesIO(content), formats=reading.formats)
    except Exception:  # Pillow's readers raise whatever their parsers come upon
        raise InvalidInput(f"not a {', '.join(reading.formats[:-1])} or {reading.formats[-1]} image") from None
    if image.width * image.height > budget:
        raise InvalidInput(f"too many pixels: at most {reading.max_pixels} in all pictures of a request together")
    if content.startswith(_JPEG_START) and content.count(_JPEG_SCAN) > MOST_SCANS:
        raise InvalidInput(f"a JPEG of more than {MOST_SCANS} scans")
    return image


def _load(image: Image.Image, content: bytes, reading: Reading) -> Pixels:
    """Decode an opened picture and convert it."""
    with image:
        try:
            if getattr(image, "is_animated", False) and not reading.first_frame:
                raise InvalidInput("an animated image; send one frame")
            image.load()
            if image.format == "PNG" and _PNG_END not in content:  # Pillow is content once it has every pixel
                raise InvalidInput("a damaged or truncated image")
            return _convert(image, reading)  # what a damaged EXIF block or palette does shows only here
        except InvalidInput:
            raise
        except Exception:
            raise InvalidInput("a damaged or truncated image") from None


def _convert(image: Image.Image, reading: Reading) -> Pixels:
    if reading.strict and (image.mode != reading.mode or image.size != reading.size(*image.size)):
        if reading.width is None:
            sides = f"an image whose sides are multiples of {reading.multiple}, of mode {reading.mode}"
            raise InvalidInput(f"strict wants {sides}")
        raise InvalidInput(f"strict wants a {reading.width} x {reading.height} image of mode {reading.mode}")
    image = ImageOps.exif_transpose(image)
    size = reading.size(*image.size)
    if image.mode.startswith("I"):  # Pillow's own conversion clips 16-bit grey at 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        under = Image.new("RGBA", image.size, reading.background)
        image = Image.alpha_composite(under, image.convert("RGBA"))
    if image.mode != reading.mode:
        image = image.convert("RGB").convert(reading.mode)
    if reading.invert:
        image = ImageOps.invert(image)
    if reading.crop:  # before and apart from resizing, whose filter would look over the edge of a box
        image = image.crop(_middle(image, size) if reading.width else _inner(image, size))
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(image, np.uint8).reshape(size[1], size[0], -1)


def _middle(image: Image.Image, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the largest part in the middle that has the shape of `size`."""
    scale = min(image.width / size[0], image.height / size[1])
    return _inner(image, (max(1, round(scale * size[0])), max(1, round(scale * size[1]))))


def _inner(image: Image.Image, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of as much of `size` as there is, in the middle."""
    width, height = min(size[0], image.width), min(size[1], image.height)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return left, top, left + width, top + height


def read_plain_png(content: bytes, reading: Reading) -> Pixels | None:
    """Pixels of a PNG that is as the model takes it, in a third of the time; None if it is anything else.

    That is: 8 bits, of the model's size and mode, not interlaced, with no chunk but header, one of data, and end. The
    data are read by Pillow's own decoder. Where pictures keep their size, none is.
    """
    height, width = reading.height, reading.width
    if height is None or width is None:
        return None
    start = _plain_start(height, width, reading.mode)
    kind = len(start) + 4
    end = kind + 4 + int.from_bytes(content[len(start) : kind])
    if (
        not content.startswith(start)
        or content[kind : kind + 4] != b"IDAT"
        or content[end + 4 :] != _PNG_LAST
        or zlib.crc32(content[kind:end]) != int.from_bytes(content[end : end + 4])
    ):
        return None
    image = _canvas(height, width, reading.mode, get_ident())
    image.paste(0, (0, 0, width, height))  # too few rows are no error: the rest would be another's
    try:
        image.frombytes(content[kind + 4 : end], "zip", reading.mode, 0)
    except ValueError:
        return None
    pixels = np.frombuffer(image.tobytes(), np.uint8).reshape(height, width, -1)
    return 255 - pixels if reading.invert else pixels


@lru_cache(256)
def _plain_start(height: int, width: int, mode: str) -> bytes:
    """How such a PNG starts: everything before its data."""
    return _PNG_START + _chunk(b"IHDR", _PNG_HEADER.pack(width, height, 8, _PNG_COLOR[mode], 0, 0, 0))


@lru_cache(256)
def _canvas(height: int, width: int, mode: str, _thread: int) -> Image.Image:
    """What such PNGs are decoded on, again and again: one for each thread."""
    return Image.new(mode, (width, height))


def _chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG's chunk."""
    return b"".join(
        (len(content).to_bytes(4), kind, content, zlib.crc32(content, zlib.crc32(kind)).to_bytes(4)),
    )


def read_plain_pngs(contents: Sequence[bytes], reading: Reading) -> Pixels | None:
    """Pixels `[N, H, W, C]` where every one of N pictures is such a PNG, and they are within the limit; else None."""
    if reading.width is None or reading.height is None:
        return None
    if len(contents) * reading.width * reading.height > reading.max_pixels:
        return None
    images = []
    for content in contents:
        pixels = read_plain_png(content, reading)
        if pixels is None:
            return None
        images.append(pixels)
    return images[0][None] if len(images) == 1 else np.stack(images)


def parse_color(text: str) -> tuple[int, int, int]:
    """RGB of a colour as CSS writes it: `black`, `#fff`, `#102030`.

    Raises:
        InvalidInput: not a colour.
    """
    try:
        if not _COLOR.fullmatch(text):  # Pillow knows other notations, and what breaks on huge numbers in them
            raise ValueError
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError:
        raise InvalidInput("not a colour; write a name, #rgb or #rrggbb") from None
    return red, green, blue


@dataclass(frozen=True)
class Writer:
    """A picture format: its media type and Pillow's options for a still picture and for an animation."""

    media_type: str
    still: dict[str, Any] | None
    animation: dict[str, Any] | None = None
    most_pixels: int = 65_500
    """Along each side: what the format, or its encoder, can hold."""


WRITERS = {
    "png": Writer("image/png", still={"format": "PNG", "compress_level": 6}),
    "webp": Writer(
        "image/webp",
        still={"format": "WEBP", "lossless": True, "method": 0},
        animation={"format": "WEBP", "lossless": True, "method": 0, "loop": 0},
        most_pixels=16_383,
    ),
    "jpg": Writer("image/jpeg", still={"format": "JPEG", "quality": 95}),
    "gif": Writer("image/gif", still=None, animation={"format": "GIF", "loop": 0, "disposal": 1}),
}


def write_image(pixels: Pixels, format: str = "png") -> bytes:
    """One still picture of `[H, W, C]` pixels as `png`, `webp` or `jpg`."""
    if format == "png" and pixels.shape[-1] == 1:
        return _grey_png(pixels[..., 0])
    buffer = io.BytesIO()
    _to_image(pixels).save(buffer, **(WRITERS[format].still or {}))
    return buffer.getvalue()


def _grey_png(pixels: Pixels) -> bytes:
    """A grey PNG without row filters: stored where it fits into one packet anyway, else its runs encoded.

    Of a digit, that takes a tenth of Pillow's time, and of a grid of 64 as well; see docs/performance.md.
    """
    height, width = pixels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each begins with its filter: none
    rows[:, 1:] = pixels
    data = rows.tobytes()
    compressed = zlib.compress(data, 0) if len(data) <= _ONE_PACKET else _encode_runs(data)
    return _plain_start(height, width, "L") + _chunk(b"IDAT", compressed) + _PNG_LAST


def _encode_runs(data: bytes) -> bytes:
    """zlib's run-length encoding."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 15, 8, zlib.Z_RLE)
    return compressor.compress(data) + compressor.flush()


def write_animation(frames: Pixels, format: str, milliseconds: int) -> bytes:
    """An endless animation of `[N, H, W, C]` frames as `gif` or `webp`, each shown for `milliseconds`."""
    first, *others = (_to_image(frame) for frame in frames)
    buffer = io.BytesIO()
    options = WRITERS[format].animation or {}
    first.save(buffer, save_all=True, append_images=others, duration=milliseconds, **options)
    return buffer.getvalue()


def write_text(text: str, height: int) -> Pixels:
    """A line of text in Pillow's own font, `[h, w]`: 255 where there is ink; `height` is the font's, in pixels."""
    font = ImageFont.load_default(height)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (math.ceil(right - left) + 1, math.ceil(bottom - top) + 1))
    ImageDraw.Draw(image).text((-left, -top), text, 255, font)
    return np.asarray(image)


def grid_shape(count: int, columns: int | None = None) -> tuple[int, int]:
    """Columns and rows of a grid of so many; `columns` defaults to ceil(sqrt(count))."""
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    return columns, math.ceil(count / columns)


def tile(images: Pixels, columns: int | None = None) -> Pixels:
    """Images `[N, H, W, C]` side by side, row by row; `columns` defaults to ceil(sqrt(N)). Empty places are black."""
    count, height, width, channels = images.shape
    if count == 1:
        return images.reshape(height, width, channels)
    columns, rows = grid_shape(count, columns)
    if rows * columns > count:
        blank = np.zeros((rows * columns - count, height, width, channels), np.uint8)
        images = np.concatenate([images, blank])
    grid = images.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, channels)


def read_images(contents: Sequence[bytes], reading: Reading) -> Pixels:
    """Pixels `[N, H, W, C]` of N pictures, each a PNG, JPEG, WebP or still GIF, as the model takes them.

    EXIF orientation is applied, 16-bit, palette and other modes are converted, alpha is flattened on the background,
    another size is resized with antialiasing. `reading` may ask for other formats, for the middle of a picture, or for
    an animation's first frame.

    Raises:
        InvalidInput: not an image of these formats, damaged, animated, more pixels than are allowed in all, not as
            `strict` wants it, or of another size than the first where they keep their sizes; the pointer says which,
            `/3`.
    """
    images, budget = np.empty(0, np.uint8), reading.max_pixels
    for index, content in enumerate(contents):
        try:
            image = _open(content, budget, reading)
            budget -= _counted(image, reading, budget)
            pixels = _load(image, content, reading)
            if not index:
                images = np.empty((len(contents), *pixels.shape), np.uint8)
            if pixels.shape != images.shape[1:]:
                raise InvalidInput("of another size than the first: this model keeps sizes, so all must have the same")
            images[index] = pixels
        except InvalidInput as error:
            raise error.below(f"/{index}") from None
    return images


def _counted(image: Image.Image, reading: Reading, budget: int) -> int:
    """Pixels of a picture or, if they are more, of the image that it becomes: a small one may get larger.

    Raises:
        InvalidInput: more than `budget`.
    """
    width, height = reading.size(image.width, image.height)
    pixels = max(image.width * image.height, width * height)
    if pixels > budget:
        raise InvalidInput("too many pixels: there is a limit on all pictures of a request together")
    return pixels


def _to_image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
