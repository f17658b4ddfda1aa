"""Time to read and write images of digits, and their sizes in bytes, compared with Pillow's own functions.

.venv/bin/python -m bench.images
"""

import io
import math
import timeit
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import typer
from PIL import Image
from rich import print as show
from rich.table import Table

from app.bundle.files import read_bundle
from app.codecs.images import Reading, read_images, read_plain_pngs, tile, write_image
from bench.serving import LIGHT, ROOT, newest, png, processor
from training.offline import OfflineGraphs

COUNTS = (1, 64, 400)
"""Digits in an image."""


def microseconds(call: Callable[[], object]) -> float:
    """Microseconds of a call: the median of nine rounds of 20 ms."""
    number = max(1, math.ceil(0.02 / timeit.timeit(call, number=1)))
    return 1e6 * median(timeit.repeat(call, number=number, repeat=9)) / number


def pillow(pixels: np.ndarray[Any, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(buffer, **options)
    return buffer.getvalue()


def main() -> None:
    """Print tables of microseconds and bytes."""
    graphs = OfflineGraphs(read_bundle(ROOT / "models" / newest(LIGHT)))
    latents = np.random.default_rng(0).standard_normal((max(COUNTS), 2), np.float32)
    digits = graphs.decode(latents).transpose(0, 2, 3, 1)
    writers: dict[str, Callable[[Any], bytes]] = {
        "PNG, ours": write_image,
        "PNG, Pillow's default": lambda pixels: pillow(pixels, format="PNG"),
        "PNG, Pillow, compress_level=1": lambda pixels: pillow(pixels, format="PNG", compress_level=1),
        "WebP, ours (lossless, method=0)": lambda pixels: write_image(pixels, "webp"),
        "WebP, Pillow, lossless": lambda pixels: pillow(pixels, format="WEBP", lossless=True),
    }
    table = Table("written", *(f"{count} digits" for count in COUNTS), title=processor())
    for name, write in writers.items():
        cells = []
        for count in COUNTS:
            image = tile(digits[:count])
            cells.append(f"{microseconds(lambda i=image, w=write: w(i)):,.0f} us, {len(write(image)):,} bytes")  # type: ignore[misc]
        table.add_row(name, *cells)
    show(table)
    content, reading = png(digits[0, ..., 0]), Reading(height=28, width=28, mode="L", max_pixels=10**6)
    readers = {
        "PNG of the model's size, ours": lambda: read_plain_pngs([content], reading),
        "PNG, by Pillow's reader and every conversion": lambda: read_images([content], reading),
        "Pillow's open and asarray": lambda: np.asarray(Image.open(io.BytesIO(content))),
    }
    table = Table("read", "one digit")
    for name, read in readers.items():
        table.add_row(name, f"{microseconds(read):,.1f} us")
    show(table)


if __name__ == "__main__":
    typer.run(main)
