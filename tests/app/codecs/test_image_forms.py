"""Every form of image file, read as a second decoder reads its pixels, or refused with the words of the table."""

from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from app.codecs.images import Reading, read_images
from app.errors import InvalidInput
from tests.image_forms import FORMS, Form

BACKGROUND = 200, 40, 120
BITS = 24
"""Where a PNG has its bits per sample."""
LOSSY = 2
"""Levels by which two decoders of a lossy format may differ."""


def reading(mode: Any) -> Reading:
    return Reading(height=None, width=None, mode=mode, max_pixels=10_000, background=BACKGROUND)


def second(content: bytes) -> NDArray[Any]:
    """RGBA `[H, W, 4]`, 0 to 255, as other libraries than Pillow decode a file: libpng, libjpeg, libwebp, giflib."""
    if content.startswith(b"\x89PNG"):
        image = imagecodecs.png_decode(content)
        image = image >> 8 if image.dtype == np.uint16 else image
    elif content.startswith(b"\xff\xd8"):
        image = imagecodecs.jpeg8_decode(content)
        if image.ndim == 3 and image.shape[2] == 4:  # CMYK, inverted as Adobe does
            image = np.round(image[..., :3] * (image[..., 3:] / 255))
    elif content.startswith(b"RIFF"):
        image = imagecodecs.webp_decode(content, hasalpha=True)
    else:
        image = imagecodecs.gif_decode(content, index=0)
    image = image[..., None] if image.ndim == 2 else image
    channels = image.shape[2]
    color = image[..., :3] if channels > 2 else image[..., :1].repeat(3, axis=2)
    alpha = image[..., -1:] if channels in (2, 4) else np.full((*image.shape[:2], 1), 255)
    return np.concatenate([color, alpha], axis=2).astype(np.float64)


def named(form: Form) -> str:
    return f"{form.format}, {form.name}"


@pytest.mark.parametrize("form", [form for form in FORMS if form.is_read], ids=named)
def test_what_is_read_shows_what_another_decoder_shows(form: Form) -> None:
    for example in form.examples():
        rgba = second(example.content)
        if example.alpha is not None:
            rgba[..., 3] = example.alpha
        opacity = rgba[..., 3:] / 255
        flat = example.turn(rgba[..., :3] * opacity + np.array(BACKGROUND) * (1 - opacity))
        gray = flat @ [0.299, 0.587, 0.114]  # ITU-R 601
        tolerance = LOSSY if "JPEG" in form.format or "WebP" in form.format else 1
        for mode, wanted in (("RGB", flat), ("L", gray[..., None])):
            (pixels,) = read_images([example.content], reading(mode))
            assert pixels.shape == wanted.shape
            assert np.abs(pixels - wanted).max() <= tolerance
            assert (np.abs(pixels - wanted) < 1).mean() > 0.9


@pytest.mark.parametrize("form", [form for form in FORMS if not form.is_read], ids=named)
def test_what_is_refused_is_refused_in_these_words(form: Form) -> None:
    for example in form.examples():
        for mode in ("RGB", "L"):
            with pytest.raises(InvalidInput) as refusal:
                read_images([example.content], reading(mode))
            assert refusal.value.detail == form.happens


def test_a_transparent_value_is_told_from_its_neighbors_at_every_depth() -> None:
    """The second decoder could be wrong in the same way."""
    for form in FORMS:
        if form.format == "PNG" and "one transparent" in form.name:
            for example in form.examples():
                (pixels,) = read_images([example.content], reading("RGB"))
                assert pixels[0, 0].tolist() == list(BACKGROUND)
                clear = (pixels == BACKGROUND).all(axis=2)
                assert not clear[: example.content[BITS], 1].any()
