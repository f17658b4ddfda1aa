"""The card of an imported bundle, README.md: where it comes from, what was answered, and the round trip."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from app.bundle.manifest import Manifest, read_manifest
from app.codecs.images import Pixels, tile, write_image
from training.importing.checks.round_trip import RoundTrip
from training.importing.options import Answers
from training.importing.report import figures, warnings

PICTURE = "reconstructions.png"
COLUMNS = 8
ROWS = 4
GAP = 2
LARGEST_SIDE = 256
"""Pixels of an image in the picture; larger ones are thinned out."""


def write_card(
    directory: Path, kind: str, answers: Answers, trip: RoundTrip, sizes: tuple[int, ...], origin: str | None
) -> None:
    """Write `README.md` and its picture beside the manifest in `directory`."""
    manifest = read_manifest(directory)
    (directory / PICTURE).write_bytes(write_image(draw(trip)))
    sections = _sections(manifest, kind, answers, trip, sizes, origin)
    (directory / "README.md").write_text("\n\n".join(sections) + "\n")


def draw(trip: RoundTrip) -> Pixels:
    """Rows of images, each above its reconstruction; uint8 `[H, W, C]`."""
    count = min(len(trip.reconstructions), COLUMNS * ROWS)
    count -= count % COLUMNS if count > COLUMNS else 0
    lines = [
        _framed(images[start : start + COLUMNS])
        for start in range(0, count, COLUMNS)
        for images in (trip.samples.images[:count], trip.reconstructions[:count])
    ]
    return tile(np.concatenate(lines), columns=min(count, COLUMNS))


def _framed(images: Pixels) -> Pixels:
    """`[N, C, H, W]` as `[N, H, W, C]` with a white edge."""
    step = -(-max(images.shape[2:]) // LARGEST_SIDE)
    small = images[:, :, ::step, ::step].transpose(0, 2, 3, 1)
    return np.pad(small, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)


def _sections(
    manifest: Manifest, kind: str, answers: Answers, trip: RoundTrip, sizes: tuple[int, ...], origin: str | None
) -> Iterator[str]:
    yield f"# {manifest.name}, version {manifest.version}"
    yield manifest.description
    yield f"Imported from {kind}{f', {origin}' if origin else ''}. The weights are under {manifest.license}."
    yield "## What was answered"
    yield _table(("option", "value"), _answers(answers))
    yield "## Round trip"
    yield (
        "Measured at the import, through the source itself; the graphs of this bundle gave the same in batches of "
        f"{', '.join(map(str, sizes))}."
    )
    yield _table(("figure", "value"), figures(trip))
    yield from (f"Mind that {words}." for words in warnings(trip, answers))
    yield f"![Reconstructions]({PICTURE})"
    shown = "Images" if trip.samples.are_real else "Made pictures"
    yield f"{shown}, and below each what encoder and decoder make of it."


def _answers(answers: Answers) -> Iterator[tuple[str, str]]:
    yield (
        "images",
        "x".join("any" if size is None else str(size) for size in (answers.channels, answers.height, answers.width)),
    )
    yield "layout", answers.layout + (", BGR" if answers.bgr else "")
    yield "range of images", str(answers.range)
    yield "output", answers.output + (f" in {answers.output_range}" if answers.output == "image" else "")
    yield "posterior", answers.posterior + (", one tensor of moments" if answers.is_split else "")
    yield "prior", answers.prior
    if (answers.scaling_factor, answers.shift_factor) != (1, 0):
        yield "latents of other protocols", f"(z - {answers.shift_factor:g}) * {answers.scaling_factor:g}"


def _table(heading: tuple[str, str], rows: Iterator[tuple[str, str]]) -> str:
    lines = [heading, ("---", "---"), *rows]
    return "\n".join(f"| {name} | {value} |" for name, value in lines)
