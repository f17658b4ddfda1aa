"""Image files <-> pixels, uint8 `[H, W, C]` with C = 1 (gray) or 3 (RGB). The only file that imports PIL."""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import get_ident
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageChops, ImageColor, ImageDraw, ImageFile, ImageFont, ImageOps
from typing_extensions import TypeAliasType

from app.codecs import png
from app.codecs.structure import JPEG, WEBP, Parts, Structure, read_structure
from app.errors import InvalidInput
from app.maths.arrays import Pixels as Pixels

ImageFormat = TypeAliasType("ImageFormat", Literal["png", "webp"])
AnimationFormat = TypeAliasType("AnimationFormat", Literal["png", "gif", "webp"])
Resampling = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
"""Pillow's filters. All but `nearest` antialias: reducing an image, they look at all its pixels."""

# Dimensions are checked below, against a setting, before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

_COLOR = re.compile("[a-z]+|#[0-9a-f]{3}|#[0-9a-f]{6}", re.IGNORECASE)

MAX_SIDE = 65_535
"""Maximum pixels of a side, as in JPEG and GIF. Resizing builds a table with an entry for each pixel of a side, and no
other thread can run meanwhile: for a side of 16 million pixels it took 3 s and 800 MB."""

MAX_REDUCTION = 8
"""Averaging (for a JPEG, while it is decoded) reduces a large image to no less than this many times the model's sides.
The slower filter then resizes it."""
_SECONDS_PER_PIXEL = 25e-9
"""Estimated seconds per decoded pixel to convert it, measured on RGBA."""
_BYTES_PER_PIXEL, _BYTES_PER_WEBP_PIXEL = 12, 20
"""Estimated bytes of memory per decoded pixel: Pillow's four, for the image and two results. The decoder of WebP keeps
two images of its own."""
_STRIP_PIXELS = 2**18
_PNG_BITS = 24
"""Where a PNG has its bits per sample."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image of an EXIF orientation upright."""

_SIGNATURES = {
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "JPEG": rb"\xff\xd8\xff",
    "WEBP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
}
"""The first bytes of each format that requests may send."""
READERS = tuple(_SIGNATURES)
"""Pillow's names of the formats that are read. Rare formats are left out: their readers are the vulnerable ones."""


@dataclass(frozen=True)
class Reading:
    """How image files are converted to a model's images."""

    height: int | None
    """Height in pixels; None if images keep their size, which must then be the same in the whole request."""
    width: int | None
    """Width in pixels; None if `height` is."""
    mode: Literal["L", "RGB"]
    """Pillow's name of the pixel format."""
    max_pixels: int
    """Maximum pixels of all images of a request together, before and after resizing."""
    multiple: int = 1
    """If images keep their size, sides are rounded down to a multiple of this, by resizing."""
    background: tuple[int, int, int] = (0, 0, 0)
    """RGB color under transparent pixels."""
    invert: bool = False
    """Invert the pixels: for images of black on white and a model of white on black."""
    strict: bool = False
    """Raise for another size or mode instead of converting."""
    crop: bool = False
    """Keep the middle of an image with another aspect ratio, instead of stretching it."""
    first_frame: bool = False
    """Read the first frame of an animation instead of raising."""
    resampling: Resampling = "lanczos"
    """Filter that resizes."""
    formats: tuple[str, ...] = READERS
    """Pillow's names of the formats that are read."""

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height that an image of this size is resized to."""
        if self.height is None or self.width is None:
            return max(width // self.multiple, 1) * self.multiple, max(height // self.multiple, 1) * self.multiple
        return self.width, self.height


def survey(contents: Sequence[bytes], reading: Reading) -> list[Structure]:
    """The structures of image files, of at most `reading.max_pixels` together, before and after resizing.

    No pixel is decoded: a few bytes can hold millions of them.

    Raises:
        InvalidInput: a file has another format, too many pixels with those before it, a side that is too long, or too
            many parts; the pointer names it, `/3`.
    """
    structures, budget, parts = [], reading.max_pixels, Parts(sum(map(len, contents)))
    for index, content in enumerate(contents):
        try:
            structure = _structure(content, reading, parts)
            pixels = structure.width * structure.height
            width, height = reading.size(structure.width, structure.height)
            budget -= max(pixels, width * height)
            if budget < 0:
                raise InvalidInput(f"too many pixels: at most {reading.max_pixels} in all images of a request together")
            if max(structure.width, structure.height) > MAX_SIDE:
                raise InvalidInput(f"a side of more than {MAX_SIDE} pixels")
            if structure.is_animated and not reading.first_frame:
                raise InvalidInput("an animated image; send one frame")
        except InvalidInput as error:
            raise error.below(f"/{index}") from None
        pixels //= _draft(structure, reading) ** 2
        memory = pixels * (_BYTES_PER_WEBP_PIXEL if structure.content.startswith(WEBP) else _BYTES_PER_PIXEL)
        seconds = structure.seconds + pixels * _SECONDS_PER_PIXEL
        structures.append(structure._replace(seconds=seconds, memory=memory))
    return structures


def _structure(content: bytes, reading: Reading, parts: Parts) -> Structure:
    """The structure of a file; formats that only training reads tell their size alone."""
    structure = read_structure(content, parts) or Structure(content, 0, 0)
    if not structure.width * structure.height:
        with _open(structure.content, reading) as image:
            return structure._replace(width=image.width, height=image.height)
    return structure


def _open(content: bytes, reading: Reading) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(content), formats=reading.formats)
    except Exception:  # Pillow's parsers raise many kinds of errors
        if any(re.match(_SIGNATURES[name], content, re.DOTALL) for name in reading.formats if name in _SIGNATURES):
            raise InvalidInput("a damaged or truncated image") from None
        raise InvalidInput(f"not a {', '.join(reading.formats[:-1])} or {reading.formats[-1]} image") from None


def _draft(structure: Structure, reading: Reading) -> int:
    """By how much a JPEG is reduced while it is decoded, on each side: 1, 2, 4 or 8."""
    if not reading.width or not reading.height or reading.strict or not structure.content.startswith(JPEG):
        return 1
    if reading.resampling == "nearest":  # takes single pixels, no averages
        return 1
    ratio = min(structure.width, structure.height) // (MAX_REDUCTION * max(reading.width, reading.height))
    return min(8, 1 << max(ratio.bit_length() - 1, 0))


def decode(structure: Structure, reading: Reading) -> Pixels:
    """Pixels `[H, W, C]` of a surveyed image file, converted as `reading` says; see `read_images`.

    Raises:
        InvalidInput: the file is damaged, or refused by `strict`.
    """
    try:
        return _convert(_load(structure, reading), structure.orientation, reading)  # damaged palettes raise only here
    except InvalidInput:
        raise
    except Exception:
        raise InvalidInput("a damaged or truncated image") from None


def _load(structure: Structure, reading: Reading) -> Image.Image:
    image = _open(structure.content, reading)
    if image.size != (structure.width, structure.height):  # the decoder reads a size elsewhere in the file
        raise InvalidInput("a damaged or truncated image")
    if (draft := _draft(structure, reading)) > 1:
        image.draft(None, (image.width // draft, image.height // draft))
    frame = image.tile[0].extents if image.format == "GIF" else None
    image.load()
    vars(image).update(fp=None, _decoder=None)  # of WebP: they keep the file's pixels three times
    if image.format == "PNG" and png.END not in structure.content:  # Pillow accepts a missing end
        raise InvalidInput("a damaged or truncated image")
    if frame is not None and frame != (0, 0, *image.size):
        return _around(image, frame)
    key = image.info.get("transparency")
    if image.mode == "I;16" and isinstance(key, int):
        return _with_gray_key(image, key)
    if image.mode == "RGB" and isinstance(key, tuple) and structure.content[_PNG_BITS] == 16:
        low = _open(structure.content, reading)
        low.tile = [low.tile[0]._replace(args="RGB;16L")]  # as if the bytes of each value were swapped
        low.load()
        return _with_color_key(image, low, key)
    return image


def _around(image: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
    """A GIF with nothing around its frame, where Pillow has the first color."""
    clear = Image.new("RGBA", image.size)
    clear.paste(image.crop(frame).convert("RGBA"), frame)
    return clear


def _with_gray_key(image: Image.Image, key: int) -> Image.Image:
    """16-bit gray, reduced to 8 bits, of which `key` is transparent."""
    values = np.asarray(image)
    gray = Image.fromarray((values >> 8).astype(np.uint8))
    gray.putalpha(Image.fromarray(np.where(values == key, np.uint8(0), np.uint8(255))))
    return gray


def _with_color_key(high: Image.Image, low: Image.Image, key: tuple[int, ...]) -> Image.Image:
    """The high bytes of 16-bit RGB, whose color `key` is transparent: only with the low bytes can it be told from its
    neighbors."""
    opaque = Image.new("L", high.size)
    for image, values in ((high, [value >> 8 for value in key]), (low, [value & 0xFF for value in key])):
        for channel, value in enumerate(values):
            table = [255] * 256
            table[value] = 0
            opaque = ImageChops.lighter(opaque, image.getchannel(channel).point(table))
    high.putalpha(opaque)
    return high


def _convert(image: Image.Image, orientation: int, reading: Reading) -> Pixels:
    if reading.strict and (image.mode != reading.mode or image.size != reading.size(*image.size)):
        if reading.width is None:
            sides = f"an image whose sides are multiples of {reading.multiple}, of mode {reading.mode}"
            raise InvalidInput(f"strict requires {sides}")
        raise InvalidInput(f"strict requires a {reading.width} x {reading.height} image of mode {reading.mode}")
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    size = reading.size(*image.size)
    if image.mode.startswith("I"):  # Pillow's own conversion clips 16-bit gray at 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = _flatten(image, reading.background)
    if image.mode not in (reading.mode, "1"):
        image = image.convert("RGB")
    if image.mode != reading.mode:
        image = image.convert(reading.mode)
    if reading.invert:
        image = ImageOps.invert(image)
    if reading.crop:  # before resizing: the box of `resize` would let its filter see pixels outside
        image = image.crop(_middle(image, size) if reading.width else _inner(image, size))
    if image.size != size:
        image = image.resize(size, Image.Resampling[reading.resampling.upper()], reducing_gap=MAX_REDUCTION)
    return np.asarray(image, np.uint8).reshape(size[1], size[0], -1)


def _flatten(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """An image on a background, as RGB. Composed in strips, because Pillow lets no other thread run meanwhile."""
    flat, rows = Image.new("RGB", image.size), max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        flat.paste(Image.alpha_composite(Image.new("RGBA", strip.size, background), strip), (0, top))
    return flat


def _middle(image: Image.Image, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the largest central part with the aspect ratio of `size`."""
    scale = min(image.width / size[0], image.height / size[1])
    return _inner(image, (max(1, round(scale * size[0])), max(1, round(scale * size[1]))))


def _inner(image: Image.Image, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the central part of `size`, reduced to the image if that is smaller."""
    width, height = min(size[0], image.width), min(size[1], image.height)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return left, top, left + width, top + height


def read_plain_pngs(contents: Sequence[bytes], reading: Reading) -> Pixels | None:
    """Pixels `[N, H, W, C]` if all N files are plain PNGs of the model's size and mode, within the limit of pixels.

    Returns None for anything else. Takes a third of the time of `read_images`. Pillow's decoder reads the data; see
    `png.plain_data`.
    """
    height, width = reading.height, reading.width
    if height is None or width is None or len(contents) * height * width > reading.max_pixels:
        return None
    image, memory = _canvas(height, width, reading.mode, get_ident())
    images = np.empty((len(contents), height, width, len(reading.mode)), np.uint8)
    for pixels, content in zip(images, contents, strict=True):
        data = png.plain_data(content, height, width, reading.mode)
        if data is None:
            return None
        memory.fill(0)  # missing rows raise nothing: they would show the previous image
        try:
            image.frombytes(data, "zip", reading.mode, 0)
        except ValueError:
            return None
        pixels[:] = memory[..., : len(reading.mode)]
    return 255 - images if reading.invert else images


@lru_cache(256)
def _canvas(height: int, width: int, mode: str, _thread: int) -> tuple[Image.Image, Pixels]:
    """The reused image that plain PNGs are decoded into, one per thread, and its memory `[H, W, 1 or 4]`."""
    own = "L" if mode == "L" else "RGBX"  # Pillow keeps RGB with a fourth byte
    memory = np.empty((height, width, len(own)), np.uint8)
    return Image.frombuffer(own, (width, height), memory, "raw", own, 0, 1), memory


@lru_cache(256)
def parse_color(text: str) -> tuple[int, int, int]:
    """RGB of a CSS color: `black`, `#fff`, `#102030`.

    Raises:
        InvalidInput: not a color.
    """
    try:
        if not _COLOR.fullmatch(text):  # Pillow accepts other notations, and fails on huge numbers in them
            raise ValueError
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError:
        raise InvalidInput("not a color; write a name, #rgb or #rrggbb") from None
    return red, green, blue


@dataclass(frozen=True)
class ImageWriter:
    """How an image format is written. One row in `WRITERS` adds a format."""

    media_type: str
    still: dict[str, Any] | None
    """Pillow's options for a still image; None if the format is only for animations."""
    animation: dict[str, Any] | None = None
    """Pillow's options for an animation; None if the format has none."""
    max_side: int = 65_500
    """Maximum side, in pixels, of the format or its encoder."""


WRITERS = {
    "png": ImageWriter("image/png", still={"format": "PNG", "compress_level": 6}),
    "webp": ImageWriter(
        "image/webp",
        still={"format": "WEBP", "lossless": True, "method": 0},
        animation={"format": "WEBP", "lossless": True, "method": 0, "loop": 0},
        max_side=16_383,
    ),
    "jpg": ImageWriter("image/jpeg", still={"format": "JPEG", "quality": 95}),
    "gif": ImageWriter("image/gif", still=None, animation={"format": "GIF", "loop": 0, "disposal": 1}),
}


def write_image(pixels: Pixels, format: str = "png") -> bytes:
    """A still image of `[H, W, C]` pixels as `png`, `webp` or `jpg`."""
    if format == "png" and pixels.shape[-1] == 1:
        return png.write_gray(pixels[..., 0])
    buffer = io.BytesIO()
    _to_image(pixels).save(buffer, **(WRITERS[format].still or {}))
    return buffer.getvalue()


def write_animation(frames: Pixels, format: str, milliseconds: int) -> bytes:
    """An endless animation of `[N, H, W, C]` frames as `gif` or `webp`, each shown for `milliseconds`."""
    first, *others = (_to_image(frame) for frame in frames)
    buffer = io.BytesIO()
    options = WRITERS[format].animation or {}
    first.save(buffer, save_all=True, append_images=others, duration=milliseconds, **options)
    return buffer.getvalue()


def write_text(text: str, height: int) -> Pixels:
    """A line of text in Pillow's own font, `[h, w]`, 255 for ink; `height` is the font size in pixels."""
    font = ImageFont.load_default(height)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (math.ceil(right - left) + 1, math.ceil(bottom - top) + 1))
    ImageDraw.Draw(image).text((-left, -top), text, 255, font)
    return np.asarray(image)


def grid_shape(count: int, columns: int | None = None) -> tuple[int, int]:
    """Columns and rows of a grid of `count` images; `columns` defaults to ceil(sqrt(count))."""
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    return columns, math.ceil(count / columns)


def tile(images: Pixels, columns: int | None = None) -> Pixels:
    """Images `[N, H, W, C]` side by side, row by row; `columns` defaults to ceil(sqrt(N)). Empty cells are black."""
    count, height, width, channels = images.shape
    if count == 1:
        return images.reshape(height, width, channels)
    columns, rows = grid_shape(count, columns)
    if rows * columns > count:
        blank = np.zeros((rows * columns - count, height, width, channels), np.uint8)
        images = np.concatenate([images, blank])
    grid = images.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width, channels)


def enlarge(images: Pixels, scale: int, *, smooth: bool = False) -> Pixels:
    """Images `[N, H, W, C]` with sides `scale` times as long; pixels become squares, or are interpolated (`smooth`)."""
    if not smooth:
        return images.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, channels = images.shape
    size = (width * scale, height * scale)
    enlarged = [np.asarray(_to_image(pixels).resize(size, Image.Resampling.BICUBIC)) for pixels in images]
    return np.reshape(enlarged, (count, *reversed(size), channels))


def read_images(contents: Sequence[bytes], reading: Reading) -> Pixels:
    """Pixels `[N, H, W, C]` of N image files, each a PNG, JPEG, WebP or still GIF, converted as `reading` says.

    EXIF orientation is applied, 16-bit, palette and other modes are converted, alpha is flattened on the background,
    and another size is resized with antialiasing.

    Raises:
        InvalidInput: not an image of these formats, damaged, animated, too many pixels together, refused by `strict`,
            or of another size than the first if images keep their size; the pointer names the image, `/3`.
    """
    return stack(decode_all(survey(contents, reading), reading))


def decode_all(structures: Sequence[Structure], reading: Reading, first: int = 0) -> list[Pixels]:
    """Pixels `[H, W, C]` of each surveyed file; the first one's index is `first`.

    Raises:
        InvalidInput: as `decode`; the pointer names the image.
    """
    images = []
    for index, structure in enumerate(structures, first):
        try:
            images.append(decode(structure, reading))
        except InvalidInput as error:
            raise error.below(f"/{index}") from None
    return images


def stack(images: Sequence[Pixels]) -> Pixels:
    """Images `[H, W, C]` as one array `[N, H, W, C]`.

    Raises:
        InvalidInput: one has another size than the first; the pointer names it.
    """
    for index, image in enumerate(images):
        if image.shape != images[0].shape:
            words = "of another size than the first: this model keeps sizes, so all must have the same"
            raise InvalidInput(words, f"/{index}")
    return images[0][None] if len(images) == 1 else np.stack(images)


def _to_image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
