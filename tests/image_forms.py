"""Every form of image file that clients send, and what happens to it: docs/api.md shows this table.

`scripts/readme` writes it, and tests/app/codecs/test_image_forms.py shows that it is true.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from tests.hostile import PNG_SIGNATURE, chunk, saved, segment

Array = NDArray[Any]
SIDES = 24, 16
"""Height and width of most files."""
ON_BACKGROUND = "Read; what is transparent lies on `background`."
READ, AS_IS = "Read.", "Read; pixel values stay as they are."
NOT_ONE_OF_THEM = "not a PNG, JPEG, WEBP or GIF image"
DAMAGED, ANIMATED = "a damaged or truncated image", "an animated image; send one frame"


@dataclass(frozen=True)
class Example:
    """One file, and what a decoder that reads its pixels alone does not know."""

    content: bytes
    turn: Callable[[Array], Array] = np.asarray
    """Turns the decoded image upright."""
    alpha: Array | None = None
    """`[H, W]`: 255 where the image is opaque; None if the decoder knows."""


@dataclass(frozen=True)
class Form:
    """A row of the table: a form that is read as `happens` says, or refused with these words as the detail."""

    format: str
    name: str
    happens: str
    examples: Callable[[], list[Example]]
    is_read: bool = True


def table() -> Iterator[str]:
    """The lines of the table."""
    yield "| format | form | what happens |"
    yield "|---|---|---|"
    for form in FORMS:
        yield f"| {form.format} | {form.name} | {form.happens if form.is_read else f'422: {form.happens}'} |"


_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits per sample of each color type of PNG (PNG specification, table 8)."""
_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def write_png(samples: Array, color: int, bits: int, chunks: bytes = b"", *, interlaced: bool = False) -> bytes:
    """A PNG of samples `[H, W, channels]`, without row filters."""
    data = b""
    for left, top, across, down in _ADAM7 if interlaced else [(0, 0, 1, 1)]:
        for row in samples[top::down, left::across]:
            bytes_of_samples = row.astype(">u2" if bits == 16 else np.uint8).tobytes()
            if bits < 8:
                single = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, -bits:]
                bytes_of_samples = np.packbits(single.ravel()).tobytes()
            data += b"\0" + bytes_of_samples if len(bytes_of_samples) else b""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, int(interlaced))
    parts = chunk(b"IHDR", header), chunks, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")
    return PNG_SIGNATURE + b"".join(parts)


def _pngs(color: int, *, transparent: bool = False, interlaced: bool = False) -> list[Example]:
    """A color type at each of its depths. `transparent` is the value of one pixel, whose neighbors differ by one bit;
    of a palette, each color has its own opacity."""
    examples = []
    for bits in _DEPTHS[color]:
        random = np.random.default_rng(bits)
        samples = random.integers(0, 2**bits, (*SIDES, _CHANNELS[color]))
        for bit in range(bits):
            samples[bit, :8] = samples[0, 0]
            samples[bit, 1] ^= 1 << bit
        chunks = b""
        if color == 3:
            chunks = chunk(b"PLTE", random.bytes(3 * 2**bits))
            chunks += chunk(b"tRNS", random.bytes(2**bits - 1)) if transparent else b""
        elif transparent:
            chunks = chunk(b"tRNS", samples[0, 0].astype(">u2").tobytes())
        examples.append(Example(write_png(samples, color, bits, chunks, interlaced=interlaced)))
    return examples


def _interlaced() -> list[Example]:
    kinds = [(0, False), (0, True), (2, False), (2, True), (3, False), (3, True), (4, False), (6, False)]
    return [it for color, clear in kinds for it in _pngs(color, transparent=clear, interlaced=True)]


def picture() -> Image.Image:
    """Smooth enough that a lossy format changes little."""
    y, x = np.mgrid[: SIDES[0], : SIDES[1]]
    return Image.fromarray(np.stack([y * 10, x * 15, (x + y) * 6], axis=-1).astype(np.uint8))


_TURNS: dict[int, Callable[[Array], Array]] = {
    1: lambda it: it,
    2: lambda it: it[:, ::-1],
    3: lambda it: it[::-1, ::-1],
    4: lambda it: it[::-1],
    5: lambda it: it.swapaxes(0, 1),
    6: lambda it: np.rot90(it, -1),
    7: lambda it: it[::-1, ::-1].swapaxes(0, 1),
    8: lambda it: np.rot90(it),
}
_OPTIONS: dict[str, dict[str, Any]] = {"PNG": {}, "JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "GIF": {}}


def _oriented(format: str) -> list[Example]:
    examples = []
    for orientation, turn in _TURNS.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        examples.append(Example(saved(picture(), format, exif=exif, **_OPTIONS[format]), turn))
    return examples


def _odd_exif(format: str) -> list[Example]:
    """Orientation 6 and an XResolution of -1/0; junk; an orientation that there is not."""
    odd = struct.pack("<HHIHHHHII", 0x0112, 3, 1, 6, 0, 0x011A, 10, 1, 38)
    turned = b"II*\0" + struct.pack("<IH", 8, 2) + odd + bytes(4) + struct.pack("<ii", -1, 0)
    ninth = b"MM\0*" + struct.pack(">IHHHIHH", 8, 1, 0x0112, 3, 1, 9, 0) + bytes(4)
    found = []
    for exif, orientation in ((turned, 6), (b"junk" * 9, 1), (ninth, 1)):
        if format == "PNG":
            content = _with_chunks(chunk(b"eXIf", exif))
        elif format == "JPEG":
            plain = saved(picture(), format, **_OPTIONS[format])
            content = plain[:2] + segment(0xE1, b"Exif\0\0" + exif) + plain[2:]
        else:
            content = saved(picture(), format, exif=b"Exif\0\0" + exif, **_OPTIONS[format])
        found.append(Example(content, _TURNS[orientation]))
    return found


def _with_chunks(chunks: bytes) -> bytes:
    plain = saved(picture(), "PNG")
    at = plain.index(b"IDAT") - 4
    return plain[:at] + chunks + plain[at:]


def _profiled(format: str) -> list[Example]:
    """With a profile of another color space than sRGB; PNGs also with a gamma."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    examples = [Example(saved(picture(), format, icc_profile=profile, **_OPTIONS[format]))]
    if format == "PNG":
        examples.append(Example(_with_chunks(chunk(b"gAMA", (100_000).to_bytes(4)))))
    return examples


def _odd_chunks() -> list[Example]:
    long = zlib.compress(bytes(3 * 2**20))
    chunks = [
        chunk(b"zTXt", b"key\0\0" + long),
        chunk(b"iTXt", b"key\0\1\0\0\0" + long),
        chunk(b"iCCP", b"icc\0\0" + long),
        chunk(b"tEXt", b"key\0text")[:-4] + b"oops",
        chunk(b"tIME", b"odd"),
    ]
    return [Example(_with_chunks(it)) for it in chunks]


def _several(format: str, **options: Any) -> bytes:
    return saved(
        picture(), format, save_all=True, append_images=[picture().rotate(180)], **_OPTIONS.get(format, {}) | options
    )


def _with_second_image() -> list[Example]:
    """MPO; and, as Ultra HDR, a smaller image of brightness behind the first, which names it in its metadata."""
    plain, gain = saved(picture(), "JPEG", quality=95), saved(picture().convert("L").resize((6, 4)), "JPEG")
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/' hdrgm:Version='1.0'/>"
    return [Example(_several("MPO", quality=95)), Example(plain[:2] + segment(0xE1, xmp) + plain[2:] + gain)]


def _color_jpegs() -> list[Example]:
    options = product((0, 1, 2), (False, True))
    return [
        Example(saved(picture(), "JPEG", quality=95, subsampling=subsampling, progressive=progressive))
        for subsampling, progressive in options
    ] + [Example(saved(picture(), "JPEG", quality=95, keep_rgb=True))]


def _gif(samples: Array, *, transparent: int | None = None, interlaced: bool = False) -> bytes:
    image = Image.fromarray(samples.astype(np.uint8))
    image.putpalette(np.random.default_rng(0).bytes(768))
    options = {} if transparent is None else {"transparency": transparent}
    return saved(image, "GIF", interlace=int(interlaced), **options)


def _gifs(*, transparent: bool = False, interlaced: bool = False) -> list[Example]:
    samples = np.random.default_rng(0).integers(0, 200, SIDES)
    samples[:4, :4] = 7
    alpha = np.where(samples == 7, 0, 255) if transparent else np.full(SIDES, 255)
    content = _gif(samples, transparent=7 if transparent else None, interlaced=interlaced)
    return [Example(content, alpha=alpha)]


def _small_gif() -> list[Example]:
    """A frame in the middle of a canvas."""
    height, width = SIDES
    content = bytearray(_gif(np.arange(height * width).reshape(SIDES) % 256))
    struct.pack_into("<HH", content, 6, width + 9, height + 7)
    struct.pack_into("<HH", content, content.index(b",", 13 + 768) + 1, 4, 3)
    return [Example(bytes(content), alpha=np.pad(np.full(SIDES, 255), ((3, 4), (4, 5))))]


def _cmyk_jpegs() -> list[Example]:
    from imagecodecs import jpeg8_encode  # Pillow writes no YCCK

    cmyk = picture().convert("CMYK")
    ycck = jpeg8_encode(255 - np.asarray(cmyk), 95, colorspace="CMYK", outcolorspace="YCCK")
    return [*(Example(saved(cmyk, "JPEG", quality=95, progressive=it)) for it in (False, True)), Example(ycck)]


def _lossless_jpegs() -> list[Example]:
    from imagecodecs import jpeg8_encode

    return [Example(jpeg8_encode(np.asarray(picture().convert(mode)), lossless=True)) for mode in ("L", "RGB")]


def _deep_jpegs() -> list[Example]:
    from imagecodecs import jpeg8_encode

    return [Example(jpeg8_encode(np.asarray(picture(), np.uint16) * 16, bitspersample=12))]


def _of_one_frame() -> list[Example]:
    animated = chunk(b"acTL", (1).to_bytes(4) + bytes(4)) + chunk(
        b"fcTL", bytes(4) + struct.pack(">II", 16, 24) + bytes(14)
    )
    return [Example(_with_chunks(animated)), Example(saved(picture(), "WEBP", save_all=True, lossless=True))]


def _with_more_behind() -> list[Example]:
    return [Example(saved(picture(), it, **_OPTIONS[it]) + b"\0\xff\xd9 more" * 99) for it in ("PNG", "JPEG", "WEBP")]


def _webps() -> list[Example]:
    return [Example(saved(picture(), "WEBP", lossless=lossless, quality=95)) for lossless in (True, False)]


def _clear_webps() -> list[Example]:
    clear = picture()
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    return [Example(saved(clear, "WEBP", lossless=lossless, quality=95, exact=True)) for lossless in (True, False)]


def _cut(format: str, *parts: float) -> list[Example]:
    whole = saved(picture(), format, **_OPTIONS[format])
    return [Example(whole[: int(len(whole) * part)]) for part in parts]


def _damaged_pngs() -> list[Example]:
    whole = saved(picture(), "PNG")
    at = whole.index(b"IDAT") + 12
    return [*_cut("PNG", 0.5, 0.9), Example(whole[:-12]), Example(whole[:at] + b"\xff\0" * 8 + whole[at + 16 :])]


def _others() -> list[Example]:
    files = [saved(picture(), it) for it in ("BMP", "TIFF", "AVIF", "JPEG2000")]
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    return [Example(it) for it in (*files, heic, b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7", b"")]


FORMS = [
    Form("PNG", "gray, of 1, 2, 4, 8 or 16 bits", "Read; of 16 bits, the upper 8 are kept.", lambda: _pngs(0)),
    Form("PNG", "gray with one transparent value, of 1 to 16 bits", ON_BACKGROUND, lambda: _pngs(0, transparent=True)),
    Form("PNG", "gray and alpha, of 8 or 16 bits", ON_BACKGROUND, lambda: _pngs(4)),
    Form("PNG", "RGB, of 8 or 16 bits", "Read; of 16 bits, the upper 8 are kept.", lambda: _pngs(2)),
    Form("PNG", "RGB with one transparent color, of 8 or 16 bits", ON_BACKGROUND, lambda: _pngs(2, transparent=True)),
    Form("PNG", "RGBA, of 8 or 16 bits", ON_BACKGROUND, lambda: _pngs(6)),
    Form("PNG", "palette, of 1, 2, 4 or 8 bits", READ, lambda: _pngs(3)),
    Form("PNG", "palette with opacities, of 1 to 8 bits", ON_BACKGROUND, lambda: _pngs(3, transparent=True)),
    Form("PNG", "interlaced, each of these", "Read like the others.", _interlaced),
    Form("PNG", "with a color profile or gamma", AS_IS, lambda: _profiled("PNG")),
    Form("PNG", "with an EXIF orientation", "Turned upright.", lambda: _oriented("PNG")),
    Form("PNG", "with other odd or damaged EXIF", "Read; a valid orientation counts.", lambda: _odd_exif("PNG")),
    Form("PNG", "with long, odd or damaged metadata", READ, _odd_chunks),
    Form("PNG", "animated", ANIMATED, lambda: [Example(_several("PNG"))], is_read=False),
    Form("PNG", "truncated, without its end, or with damaged pixels", DAMAGED, _damaged_pngs, is_read=False),
    Form("JPEG", "gray", READ, lambda: [Example(saved(picture().convert("L"), "JPEG"))]),
    Form("JPEG", "color, subsampled or not, progressive or not, or RGB", READ, _color_jpegs),
    Form("JPEG", "CMYK or YCCK", "Converted without a profile.", _cmyk_jpegs),
    Form("JPEG", "lossless", READ, _lossless_jpegs),
    Form("JPEG", "of 12 bits", "a JPEG of another depth than 8 bits", _deep_jpegs, is_read=False),
    Form("JPEG", "of several images (MPO, Ultra HDR)", "The first is read.", _with_second_image),
    Form("JPEG", "with a color profile", AS_IS, lambda: _profiled("JPEG")),
    Form("JPEG", "with an EXIF orientation", "Turned upright.", lambda: _oriented("JPEG")),
    Form("JPEG", "with other odd or damaged EXIF", "Read; a valid orientation counts.", lambda: _odd_exif("JPEG")),
    Form("JPEG", "truncated", DAMAGED, lambda: _cut("JPEG", 0.3, 0.6, 0.9), is_read=False),
    Form("WebP", "lossy or lossless", READ, _webps),
    Form("WebP", "with alpha", ON_BACKGROUND, _clear_webps),
    Form("WebP", "with a color profile", AS_IS, lambda: _profiled("WEBP")),
    Form("WebP", "with an EXIF orientation", "Turned upright.", lambda: _oriented("WEBP")),
    Form("WebP", "with other odd or damaged EXIF", "Read; a valid orientation counts.", lambda: _odd_exif("WEBP")),
    Form("WebP", "animated", ANIMATED, lambda: [Example(_several("WEBP"))], is_read=False),
    Form("WebP", "truncated", DAMAGED, lambda: _cut("WEBP", 0.5, 0.9), is_read=False),
    Form("GIF", "one frame", READ, _gifs),
    Form("GIF", "with a transparent color", ON_BACKGROUND, lambda: _gifs(transparent=True)),
    Form("GIF", "interlaced", "Read like the others.", lambda: _gifs(interlaced=True)),
    Form("GIF", "whose frame is smaller than the canvas", "Read; around the frame lies `background`.", _small_gif),
    Form("GIF", "animated", ANIMATED, lambda: [Example(_several("GIF"))], is_read=False),
    Form("GIF", "truncated", DAMAGED, lambda: _cut("GIF", 0.5, 0.9), is_read=False),
    Form("PNG, WebP", "an animation of one frame", READ, _of_one_frame),
    Form("PNG, JPEG, WebP", "with other bytes behind its end", READ, _with_more_behind),
    Form("BMP, TIFF, AVIF, HEIC, JPEG 2000, SVG, PDF", "any", NOT_ONE_OF_THEM, _others, is_read=False),
]
