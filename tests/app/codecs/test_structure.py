"""What is known of an image file before it is decoded, and what its decoder gets to see."""

import io
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.codecs.images import Reading, decode, read_images, survey
from app.codecs.structure import MAX_PARTS, Parts, Structure
from app.codecs.structure import read_structure as read_with
from app.errors import InvalidInput
from tests import hostile
from tests.conftest import ROOT
from tests.hostile import RAMP, SIDE, exif_bomb, jpeg_with, png_with, saved, segment

READING = Reading(height=SIDE, width=SIDE, mode="L", max_pixels=2**24)
FORMATS = {"PNG": {}, "JPEG": {"quality": 100}, "GIF": {}, "WEBP": {"lossless": True}}
ORIENTED = {
    2: RAMP[:, ::-1],
    3: RAMP[::-1, ::-1],
    4: RAMP[::-1],
    5: RAMP.T,
    6: np.rot90(RAMP, -1),
    7: RAMP[::-1, ::-1].T,
    8: np.rot90(RAMP),
}


def read_structure(content: bytes) -> Structure | None:
    return read_with(content, Parts(len(content)))


def shown(content: bytes) -> Any:
    return read_images([content], READING)[0, ..., 0].astype(int)


def test_what_surrounds_the_pixels_is_left_out() -> None:
    for name, content in hostile.read():
        assert np.abs(shown(content) - RAMP).max() <= 3, name
        structure = read_structure(content)
        assert structure is not None
        assert len(structure.content) < 8000 or name.startswith("WebP"), name
        assert structure.seconds < 1, name


def test_too_many_parts_are_refused_and_no_decoder_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in hostile.refused():  # which needs Pillow to make them
        monkeypatch.setattr(Image, "open", None)
        with pytest.raises(InvalidInput) as refusal:
            read_images([content], READING)
        monkeypatch.undo()
        assert any(words in refusal.value.detail for words in ("too many parts", "damaged", "scans")), name


def test_as_many_parts_as_any_encoder_writes_are_read() -> None:
    assert np.abs(shown(png_with(hostile.chunk(b"tEXt", b"a\0b") * (MAX_PARTS - 4))) - RAMP).max() == 0


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_exif_turns_the_image(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.fromarray(RAMP).convert("RGB"), format, exif=exif, **FORMATS[format])
    assert np.abs(shown(content) - ORIENTED[orientation]).max() <= 3


@pytest.mark.parametrize("exif", [b"junkjunk", b"MM\0*", b"II*\0\xff\xff\xff\xff", b"", exif_bomb(1, 0, orientation=9)])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_exif_that_is_damaged_or_odd_turns_nothing(format: str, exif: bytes) -> None:
    head = b"" if format == "PNG" else b"Exif\0\0"
    if format == "PNG":
        content = png_with(hostile.chunk(b"eXIf", exif))
    elif format == "JPEG":
        content = jpeg_with(segment(0xE1, head + exif))
    else:
        content = saved(Image.fromarray(RAMP).convert("RGB"), format, lossless=True, exif=head + exif)
    assert np.abs(shown(content) - RAMP).max() <= 3


def test_the_first_exif_block_counts_and_its_prefix_does_not() -> None:
    sideways, upright = (b"Exif\0\0" + exif_bomb(1, 0, orientation=orientation) for orientation in (6, 1))
    for content in (
        jpeg_with(segment(0xE1, sideways) + segment(0xE1, upright)),
        png_with(hostile.chunk(b"eXIf", sideways)),
    ):
        assert np.abs(shown(content) - ORIENTED[6]).max() <= 3


def test_what_lies_behind_a_webp_is_not_read() -> None:
    content = saved(Image.fromarray(RAMP).convert("RGB"), "WEBP", lossless=True)
    behind = hostile.riff(b"VP8X", bytes(4) + b"\xff" * 6) + bytes(200_000)
    assert np.abs(shown(content + behind) - RAMP).max() <= 3


def test_parts_are_counted_over_all_files_of_a_request() -> None:
    with pytest.raises(InvalidInput, match="too many parts") as refusal:
        survey([saved(Image.fromarray(RAMP), "JPEG"), *[hostile.jpeg_with(b"\xff\xd0" * 4000)] * 5], READING)
    assert refusal.value.pointer == "/5"


def test_of_several_images_in_a_jpeg_the_first_is_read() -> None:
    other = Image.new("L", (SIDE, SIDE), 9)
    content = saved(Image.fromarray(RAMP), "MPO", save_all=True, append_images=[other], quality=95)
    assert np.abs(shown(content) - RAMP).max() <= 3


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "1"])
@given(width=st.integers(1, 70), height=st.integers(1, 70), seed=st.integers(0, 99))
def test_pixels_are_those_that_pillow_reads_from_the_whole_file(
    format: str, mode: str, width: int, height: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    content = saved(image.convert("RGB") if format == "JPEG" and mode in ("P", "RGBA") else image, format)
    structure = read_structure(content)
    assert structure is not None
    assert (structure.width, structure.height, structure.is_animated) == (width, height, False)
    whole, part = Image.open(io.BytesIO(content)), Image.open(io.BytesIO(structure.content))
    assert np.array_equal(np.asarray(whole.convert("RGBA")), np.asarray(part.convert("RGBA")))
    assert whole.has_transparency_data == part.has_transparency_data


@pytest.mark.parametrize("color", range(8))
def test_a_png_of_any_depth_with_a_transparent_value_is_read_or_refused(color: int) -> None:
    for bits in range(256):
        header = struct.pack(">IIBBBBB", 1, 1, bits, color, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"tRNS", b"\0\1"), (b"IDAT", zlib.compress(bytes(9))), (b"IEND", b""))
        with suppress(InvalidInput):
            shown(b"\x89PNG\r\n\x1a\n" + b"".join(hostile.chunk(*chunk) for chunk in chunks))


@pytest.mark.parametrize("format", FORMATS)
@given(at=st.integers(0, 10_000), noise=st.binary(max_size=20), cut=st.integers(0, 10_000))
def test_damage_is_refused_or_read_and_nothing_else(format: str, at: int, noise: bytes, cut: int) -> None:
    good = saved(Image.fromarray(RAMP).convert("RGB"), format, **FORMATS[format])
    at, cut = at % len(good), cut % len(good)
    for content in (good[:at] + noise + good[at:], good[:at] + noise + good[at + len(noise) :], good[:cut]):
        with suppress(InvalidInput):
            assert shown(content).shape == (SIDE, SIDE)


def test_the_size_that_is_decoded_is_the_one_that_was_surveyed() -> None:
    (structure,) = survey([saved(Image.fromarray(RAMP), "PNG")], READING)
    with pytest.raises(InvalidInput, match="damaged"):
        decode(structure._replace(width=1), READING)
    content = hostile.huge_png(1024, 1024, color=0)
    second = hostile.chunk(b"IHDR", (2**20).to_bytes(4) + (1).to_bytes(4) + bytes([8, 0, 0, 0, 0]))
    with pytest.raises(InvalidInput, match="damaged"):
        read_images([content[:33] + second + content[33:]], READING)


def test_a_photo_costs_what_its_reduction_takes() -> None:
    photo = saved(Image.new("RGB", (4000, 3000), "red"), "JPEG")
    costs = [survey([photo], replace(READING, height=size, width=size))[0].seconds for size in (28, 100, 200, 3000)]
    assert costs[0] < costs[1] < costs[2] == costs[3]


PEAK = """
from pathlib import Path
from app.codecs.images import Reading, read_images
from tests import hostile
reading = Reading(height=28, width=28, mode="RGB", max_pixels=2**24)
def kilobytes(field):
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(field))
for files in (hostile.read(), hostile.large()):
    for name, content in files:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = kilobytes("VmRSS")
        read_images([content], reading)
        print(kilobytes("VmHWM") - before, name, sep=";")
"""


@pytest.mark.slow(reason="decodes ten images of 16 million pixels")
def test_the_largest_images_take_three_times_the_memory_of_their_pixels_at_most() -> None:
    """Pillow has four bytes for a pixel."""
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.split(";") for line in done.stdout.splitlines()]
    assert len(lines) > 20
    peak = max(int(line[0]) for line in lines)
    assert peak < 3 * 4 * 2**24 / 1024, lines
