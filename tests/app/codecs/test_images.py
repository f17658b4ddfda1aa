"""Bytes to pixels and back."""

import io
import struct
import tracemalloc
import zlib
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app.codecs.images import (
    WRITERS,
    Reading,
    Resampling,
    enlarge,
    parse_color,
    read_images,
    read_plain_pngs,
    survey,
    tile,
    write_animation,
    write_image,
)
from app.errors import InvalidInput
from tests.conftest import Pixels, png

GREY = Reading(height=28, width=28, mode="L", max_pixels=10_000)
RGB = Reading(height=28, width=28, mode="RGB", max_pixels=10_000)
RAMP = (np.arange(28 * 28) % 256).astype(np.uint8).reshape(28, 28)


def saved(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def read_image(content: bytes, reading: Reading) -> Pixels:
    """One picture."""
    return read_images([content], reading)[0]


def reading(**changes: Any) -> Reading:
    return Reading(**(GREY.__dict__ | changes))


def test_a_picture_of_the_models_size_is_read_as_it_is(digits: Pixels) -> None:
    for digit in digits[:20]:
        assert np.array_equal(read_image(png(digit), reading(strict=True))[..., 0], digit)


@pytest.mark.parametrize("format", ["WEBP", "GIF", "JPEG"])
def test_other_formats_are_read(format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {"quality": 100} if format == "JPEG" else {}
    pixels = read_image(saved(Image.fromarray(RAMP), format=format, **options), GREY)[..., 0]
    assert np.abs(pixels.astype(int) - RAMP).max() <= (12 if format == "JPEG" else 1)


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    wide = RAMP.astype(np.uint16) << 8
    assert np.array_equal(read_image(png(wide), GREY)[..., 0], RAMP)


def test_palette_bilevel_and_cmyk_are_converted() -> None:
    grey = Image.new("RGB", (28, 28), (90, 90, 90))
    assert (read_image(saved(grey.quantize(), format="PNG"), GREY) == 90).all()
    assert (read_image(saved(Image.new("1", (28, 28), 1), format="PNG"), GREY) == 255).all()
    assert np.abs(read_image(saved(grey.convert("CMYK"), format="JPEG"), GREY).astype(int) - 90).max() <= 2


def test_colour_and_grey_convert_into_each_other() -> None:
    red = saved(Image.new("RGB", (28, 28), "red"), format="PNG")
    assert read_image(red, RGB)[0, 0].tolist() == [255, 0, 0]
    assert read_image(red, GREY)[0, 0].tolist() == [76]
    assert read_image(png(RAMP), RGB).shape == (28, 28, 3)


def test_alpha_is_flattened_on_the_background() -> None:
    clear = saved(Image.new("RGBA", (28, 28), (0, 0, 0, 0)), format="PNG")
    assert (read_image(clear, GREY) == 0).all()
    assert (read_image(clear, reading(background=(255, 255, 255))) == 255).all()


def test_transparent_palette_is_flattened_too() -> None:
    image = Image.new("P", (28, 28), 0)
    image.putpalette([200, 200, 200] + [0] * 765)
    assert (read_image(saved(image, format="PNG", transparency=0), GREY) == 0).all()


def test_invert_is_for_black_on_white() -> None:
    assert np.array_equal(read_image(png(RAMP), reading(invert=True))[..., 0], 255 - RAMP)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    turned = saved(Image.fromarray(RAMP[::-1, ::-1]), format="PNG", exif=exif)
    assert np.array_equal(read_image(turned, GREY)[..., 0], RAMP)


@pytest.mark.parametrize("name", get_args(Resampling))
def test_each_filter_is_pillows(name: Resampling) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    image = Image.fromarray(noise)
    expected = image.resize((28, 28), Image.Resampling[name.upper()])
    for content in (png(noise), saved(image, format="WEBP", lossless=True)):
        assert np.array_equal(
            read_image(content, replace(RGB, resampling=name, max_pixels=20_000)), np.asarray(expected)
        )


def test_nearest_takes_pixels_of_a_large_jpeg_as_they_are() -> None:
    lines = Image.fromarray(np.indices((1024, 1024)).sum(axis=0).astype(np.uint8) % 2 * 255)
    content = saved(lines, format="JPEG", quality=100)
    pixels = Image.open(io.BytesIO(content)).resize((28, 28), Image.Resampling.NEAREST)
    nearest, averaged = reading(resampling="nearest", max_pixels=2**20), reading(max_pixels=2**20)
    assert np.array_equal(read_image(content, nearest)[..., 0], np.asarray(pixels))
    assert np.abs(read_image(content, averaged).astype(int) - 128).max() < 30
    (whole,), (reduced,) = survey([content], nearest), survey([content], averaged)
    assert whole.memory > 10 * reduced.memory
    assert whole.seconds > reduced.seconds


def test_another_size_is_resized_unless_strict(digits: Pixels) -> None:
    twice = png(np.kron(digits[0], np.ones((2, 2), np.uint8)))
    assert np.abs(read_image(twice, GREY)[..., 0].astype(int) - digits[0]).mean() < 6
    with pytest.raises(InvalidInput, match="strict requires a 28 x 28"):
        read_image(twice, reading(strict=True))


def test_the_middle_is_kept_instead_of_stretching_the_whole() -> None:
    middle = reading(crop=True)
    for padding in (((0, 0), (6, 6)), ((10, 10), (0, 0)), ((0, 0), (0, 1)), ((0, 0), (0, 0))):
        assert np.array_equal(read_image(png(np.pad(RAMP, padding, constant_values=9)), middle)[..., 0], RAMP)
    wide = png(np.pad(np.full((56, 56), 80, np.uint8), ((0, 0), (30, 30))))
    assert (read_image(wide, middle) == 80).all()
    assert (read_image(wide, GREY) == 0).any()
    oblong = reading(width=14, crop=True)
    assert np.array_equal(read_image(png(RAMP), oblong)[..., 0], RAMP[:, 7:21])
    assert read_image(png(RAMP[:1, :9]), oblong).shape == (28, 14, 1)
    assert read_image(png(RAMP[:9, :1]), oblong).shape == (28, 14, 1)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb() -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def animated(format: str) -> bytes:
    frames = [Image.new("RGB", (28, 28), color) for color in ("red", "blue")]
    return saved(frames[0], format=format, save_all=True, append_images=frames[1:])


REFUSED = {
    "empty": (b"", "not a PNG"),
    "text": (b"hello", "not a PNG"),
    "a format that is not read": (saved(Image.fromarray(RAMP), format="TIFF"), "not a PNG"),
    "truncated": (png(RAMP)[:-40], "damaged or truncated"),
    "only a header": (png(RAMP)[:33], "not a PNG|damaged or truncated"),
    "many pixels": (bomb(), "too many pixels"),
    "animated GIF": (animated("GIF"), "animated"),
    "animated PNG": (animated("PNG"), "animated"),
    "animated WebP": (animated("WEBP"), "animated"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_still_picture_is_refused(kind: str) -> None:
    content, message = REFUSED[kind]
    with pytest.raises(InvalidInput, match=message):
        read_image(content, GREY)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_is_read_where_that_is_wanted(format: str) -> None:
    red = read_image(animated(format), Reading(height=28, width=28, mode="RGB", max_pixels=10_000, first_frame=True))
    assert np.abs(red.astype(int) - [255, 0, 0]).max() <= 2


def test_only_the_formats_that_are_wanted_are_read() -> None:
    picture = saved(Image.fromarray(RAMP), format="BMP")
    assert np.array_equal(read_image(picture, reading(formats=("PNG", "BMP")))[..., 0], RAMP)
    with pytest.raises(InvalidInput, match="not a PNG or BMP image"):
        read_image(saved(Image.fromarray(RAMP), format="GIF"), reading(formats=("PNG", "BMP")))
    with pytest.raises(InvalidInput, match="not a PNG, JPEG, WEBP or GIF image"):
        read_image(picture, GREY)


@pytest.mark.parametrize("cut", [4, 12, 20, 30])
def test_a_png_without_its_end_is_truncated_even_where_no_pixel_is_missing(cut: int) -> None:
    with pytest.raises(InvalidInput, match="damaged or truncated"):
        read_image(png(np.zeros((28, 28), np.uint8))[:-cut], GREY)


@given(st.binary(max_size=60), st.integers(0, 400))
def test_damaged_pictures_are_read_or_refused_and_nothing_else(noise: bytes, at: int) -> None:
    good = png(RAMP)
    for content in (noise, good[:at] + noise + good[at + len(noise) :]):
        with suppress(InvalidInput):
            assert read_image(content, GREY).shape == (28, 28, 1)


def test_an_error_says_which_picture() -> None:
    with pytest.raises(InvalidInput) as caught:
        read_images([png(RAMP), b"x"], GREY)
    assert caught.value.pointer == "/1"


def test_colours() -> None:
    assert parse_color("#102030") == (16, 32, 48)
    assert parse_color("white") == (255, 255, 255)
    for wrong in ("mud", "#12345", "rgb(" + "9" * 30 + ",0,0)", "hsl(0,99999999999999%,50%)", "hsv(1,2%,3%)", ""):
        with pytest.raises(InvalidInput, match="not a color"):
            parse_color(wrong)


@pytest.mark.parametrize("format", ["png", "webp"])
@pytest.mark.parametrize("channels", [1, 3])
def test_still_pictures_are_lossless(format: str, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, channels), np.uint8)
    image = Image.open(io.BytesIO(write_image(pixels, format)))
    assert image.get_format_mimetype() == WRITERS[format].media_type
    assert np.array_equal(np.asarray(image.convert("RGB" if channels == 3 else "L")).reshape(pixels.shape), pixels)


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_animations_have_every_frame(format: str) -> None:
    frames = np.stack([np.full((28, 28, 1), 20 * i, np.uint8) for i in range(5)])
    image = Image.open(io.BytesIO(write_animation(frames, format, 40)))
    assert image.get_format_mimetype() == WRITERS[format].media_type
    assert image.n_frames == 5  # type: ignore[attr-defined]
    image.seek(3)
    assert np.asarray(image.convert("L"))[0, 0] == pytest.approx(60, abs=1)


def test_tiles_run_row_by_row_and_fill_up_with_black() -> None:
    images = np.stack([np.full((2, 2, 1), i + 1, np.uint8) for i in range(3)])
    grid = tile(images)
    assert grid.shape == (4, 4, 1)
    assert grid[::2, ::2, 0].tolist() == [[1, 2], [3, 0]]
    assert tile(images, columns=3).shape == (2, 6, 1)
    assert tile(images, columns=99).shape == (2, 6, 1)
    assert np.array_equal(tile(images[:1]), images[0])


def long_png(width: int, height: int) -> bytes:
    """A valid PNG of one bit a pixel, all of them white: a few kilobytes for millions of pixels."""
    header = width.to_bytes(4) + height.to_bytes(4) + bytes([1, 0, 0, 0, 0])
    data = zlib.compress((b"\0" + b"\xff" * ((width + 7) // 8)) * height, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(2**24, 1), (1, 2**24), (65_536, 1), (1, 65_536)])
def test_a_side_is_bounded_whatever_the_area(width: int, height: int) -> None:
    content = long_png(width, height)
    assert len(content) < 70_000
    with pytest.raises(InvalidInput, match="a side of more than 65535 pixels"):
        read_images([content], replace(PLAIN, max_pixels=2**24))


def test_the_longest_side_is_read() -> None:
    for content in (long_png(65_535, 256), long_png(256, 65_535)):
        assert (read_images([content], replace(PLAIN, max_pixels=2**24)) == 255).all()


def test_metadata_of_one_image_is_freed_before_the_next() -> None:
    text = PngInfo()
    for number in range(20):
        text.add_text(f"k{number}", "a" * 1_000_000, zip=True)
    content = png(np.zeros((28, 28), np.uint8), pnginfo=text)
    assert len(content) < 100_000
    tracemalloc.start()
    read_images([content], replace(PLAIN, max_pixels=10**6))
    one = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    read_images([content] * 10, replace(PLAIN, max_pixels=10**6))
    many = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert many < 2 * one


def test_pixels_are_counted_before_any_is_decoded(monkeypatch: pytest.MonkeyPatch, digits: Pixels) -> None:
    def fail(self: Image.Image) -> None:
        raise AssertionError("it is decoded")

    small, large = png(digits[0]), long_png(5000, 5000)
    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(InvalidInput, match="too many pixels") as caught:
        read_images([small, large], replace(PLAIN, strict=True))
    assert caught.value.pointer == "/1"


PLAIN = Reading(height=28, width=28, mode="L", max_pixels=10**6)


def test_the_fast_way_reads_what_pillow_writes(digits: Pixels) -> None:
    for level in (0, 1, 6, 9):
        contents = [png(digit, compress_level=level) for digit in digits[:50]]
        read = read_plain_pngs(contents, PLAIN)
        assert read is not None
        assert (read == read_images(contents, PLAIN)).all()
        assert (read[..., 0] == digits[:50]).all()
    inverted = read_plain_pngs(contents[:1], replace(PLAIN, invert=True))
    assert inverted is not None
    assert (inverted[0, ..., 0] == 255 - digits[0]).all()


def test_the_fast_way_reads_colour() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    read = read_plain_pngs([png(pixels)], replace(PLAIN, mode="RGB"))
    assert read is not None
    assert (read[0] == pixels).all()
    assert read_plain_pngs([png(pixels)], PLAIN) is None


def test_the_fast_way_leaves_everything_else_to_pillow(digits: Pixels) -> None:
    content = png(digits[0])
    text = PngInfo()
    text.add_text("a", "b")
    others = [
        b"",
        b"\x89PNG",
        png(digits[0, :27]),
        png(digits[0] > 127),
        png(digits[0], pnginfo=text),
        content[:-1],
        content + b"x",
        content[:50] + bytes([content[50] ^ 1]) + content[51:],
        content[:-30] + content[-12:],
    ]
    for other in others:
        assert read_plain_pngs([other], PLAIN) is None
    assert read_plain_pngs([content, others[2]], PLAIN) is None
    assert read_plain_pngs([content] * 3, replace(PLAIN, max_pixels=2 * 28 * 28)) is None


def with_data(data: bytes) -> bytes:
    """A 28 x 28 grey PNG of these compressed data."""
    header = (28).to_bytes(4) + (28).to_bytes(4) + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@given(rows=st.integers(0, 30), kind=st.integers(0, 5), cut=st.integers(0, 40), junk=st.binary(max_size=3))
def test_no_picture_shows_through_another(rows: int, kind: int, cut: int, junk: bytes) -> None:
    full = with_data(zlib.compress((b"\0" + b"\xff" * 28) * 28))
    assert read_plain_pngs([full], PLAIN) is not None
    data = zlib.compress((bytes([kind]) + bytes(range(28))) * rows)
    content = with_data(data[: len(data) - cut] + junk)
    fast = read_plain_pngs([content], PLAIN)
    if fast is None:
        return
    assert (fast == read_images([content], PLAIN)).all()
    assert (fast[0, rows:] == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (31, 32), (224, 224), (3, 700)])
def test_written_grey_pictures_are_valid_and_the_small_ones_fit_a_packet(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 1), np.uint8)
    content = write_image(pixels)
    with Image.open(io.BytesIO(content)) as image:
        image.verify()
    with Image.open(io.BytesIO(content)) as image:
        assert (np.asarray(image) == pixels[..., 0]).all()
    if pixels.size <= 1000:
        assert len(content) < 1460
    assert len(write_image(np.zeros((224, 224, 1), np.uint8))) < 1000


ANY = Reading(height=None, width=None, mode="L", max_pixels=10_000, multiple=8)


@given(st.integers(1, 60), st.integers(1, 60), st.booleans())
def test_a_picture_that_keeps_its_size_is_rounded_to_a_multiple(height: int, width: int, crop: bool) -> None:
    grey = np.full((height, width), 77, np.uint8)
    pixels = read_image(png(grey), replace(ANY, crop=crop))
    assert pixels.shape == (max(8, height // 8 * 8), max(8, width // 8 * 8), 1)
    assert (pixels == 77).all()


def test_what_is_a_multiple_is_as_it_was() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 40), np.uint8)
    for crop, strict in [(False, False), (True, False), (False, True)]:
        assert np.array_equal(read_image(png(pixels), replace(ANY, crop=crop, strict=strict))[..., 0], pixels)


def test_a_crop_of_what_is_too_large_by_little_changes_no_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (19, 45), np.uint8)
    assert np.array_equal(read_image(png(pixels), replace(ANY, crop=True))[..., 0], pixels[1:17, 2:42])


def test_plain_pictures_that_keep_their_size_are_left_to_the_other_reader() -> None:
    assert read_plain_pngs([png(RAMP)], ANY) is None


@pytest.mark.parametrize(
    ("shape", "limits"), [((1, 80), 640), ((100, 100), 10_000)], ids=["what it becomes", "what it is"]
)
def test_pixels_are_counted_before_and_after(shape: tuple[int, int], limits: int) -> None:
    content = png(np.zeros(shape, np.uint8))
    assert read_images([content], replace(ANY, max_pixels=limits)).shape[0] == 1
    with pytest.raises(InvalidInput, match="too many pixels"):
        read_images([content], replace(ANY, max_pixels=limits - 1))
    with pytest.raises(InvalidInput) as refused:
        read_images([content, content], replace(ANY, max_pixels=2 * limits - 1))
    assert refused.value.pointer == "/1"


def test_the_first_says_what_size_the_others_have() -> None:
    contents = [png(np.zeros(shape, np.uint8)) for shape in ((17, 25), (23, 31), (24, 24))]
    assert read_images(contents[:2], ANY).shape == (2, 16, 24, 1)
    with pytest.raises(InvalidInput, match="another size than the first") as refused:
        read_images(contents, ANY)
    assert refused.value.pointer == "/2"


@pytest.mark.parametrize("channels", [1, 3])
def test_enlarged_pixels_are_squares_or_smooth(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5, channels), np.uint8)
    squares = enlarge(images, 7)
    assert np.array_equal(squares, np.kron(images, np.ones((1, 7, 7, 1), np.uint8)))
    smooth = enlarge(images, 7, smooth=True)
    assert smooth.shape == squares.shape
    steps = [np.abs(np.diff(enlarged.astype(int), axis=2)).max() for enlarged in (squares, smooth)]
    assert steps[1] < steps[0] / 2
    flat = np.full((1, 4, 5, channels), 77, np.uint8)
    assert np.array_equal(enlarge(flat, 3, smooth=True), enlarge(flat, 3))
