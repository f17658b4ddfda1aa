"""The card of an imported bundle, README.md: its origin, the answers about the model, and the round trip."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from app.bundle.files import read_manifest
from app.bundle.manifest import Manifest
from app.codecs.images import tile, write_image
from app.maths.likelihood import Pixels
from training.importing.checks.round_trip import RoundTrip
from training.importing.checks.tiles import TileCheck
from training.importing.options import Answers, PerChannel, each
from training.importing.report import figures, warnings
from training.importing.source import Source

FIGURE = "reconstructions.png"
COLUMNS, MAX_ROWS = 8, 4
GAP = 2
"""Pixels between images of the figure."""
MAX_SIDE = 256
"""Pixels per side of an image in the figure. Larger images are subsampled."""


def write_card(
    directory: Path,
    source: Source,
    answers: Answers,
    trip: RoundTrip,
    sizes: Iterable[int],
    tiles: TileCheck | None,
) -> None:
    """Write `README.md` and its figure beside the manifest in `directory`.

    `sizes` are the batch sizes of the comparison with the source. `tiles` is None if images have one size.
    """
    (directory / FIGURE).write_bytes(write_image(draw_figure(trip)))
    sections = _sections(read_manifest(directory), source, answers, trip, sizes, tiles)
    (directory / "README.md").write_text("\n\n".join(sections) + "\n")


def draw_figure(trip: RoundTrip) -> Pixels:
    """Rows of images, each above the row of their reconstructions: uint8 `[H, W, C]`."""
    count = min(len(trip.reconstructions), COLUMNS * MAX_ROWS)
    count -= count % COLUMNS if count > COLUMNS else 0
    rows = [
        _with_gap(images[start : min(start + COLUMNS, count)])
        for start in range(0, count, COLUMNS)
        for images in (trip.samples.images, trip.reconstructions)
    ]
    return tile(np.concatenate(rows), columns=min(count, COLUMNS))


def _with_gap(images: Pixels) -> Pixels:
    """`[N, C, H, W]` to `[N, H, W, C]`, with a white gap at the right and below."""
    step = -(-max(images.shape[2:]) // MAX_SIDE)
    small = images[:, :, ::step, ::step].transpose(0, 2, 3, 1)
    return np.pad(small, ((0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)


def _sections(
    manifest: Manifest, source: Source, answers: Answers, trip: RoundTrip, sizes: Iterable[int], tiles: TileCheck | None
) -> Iterator[str]:
    yield f"# {manifest.name}, version {manifest.version}"
    yield manifest.description
    yield f"Imported from {source.kind}. The weights are under {manifest.license}."
    yield "## Options"
    yield _table("option", _answer_rows(answers))
    yield "## Round trip"
    yield (
        "Measured at the import, by running the source itself; the graphs of this bundle gave the same in batches of "
        f"{', '.join(map(str, sizes))}."
    )
    in_tiles = [] if tiles is None else [("large images, in tiles", str(tiles))]
    yield _table("figure", [*figures(trip), *in_tiles])
    yield from (f"Warning: {warning}." for warning in warnings(trip, source, answers))
    yield f"![Reconstructions]({FIGURE})"
    yield f"{'Images' if trip.samples.are_real else 'Synthetic images'}, and below each its reconstruction."


def _answer_rows(answers: Answers) -> Iterator[tuple[str, str]]:
    sizes = (answers.channels, answers.height, answers.width)
    yield "images", "x".join("any" if size is None else str(size) for size in sizes)
    yield "layout", answers.layout + (", BGR" if answers.bgr else "")
    yield "range of images", str(answers.range)
    yield "output", answers.output + (f" in {answers.output_range}" if answers.output == "image" else "")
    yield "posterior", answers.posterior + (", mean and spread in one tensor" if answers.is_split else "")
    yield "prior", answers.prior
    if (answers.scaling_factor, answers.shift_factor) != (1, 0):
        shift, scaling = (_numbers(factor) for factor in (answers.shift_factor, answers.scaling_factor))
        yield "latents of other protocols", f"(z - {shift}) * {scaling}"


def _numbers(value: PerChannel) -> str:
    text = ", ".join(f"{number:g}" for number in each(value))
    return f"[{text}]" if isinstance(value, tuple) else text


def _table(name: str, rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"| {left} | {right} |" for left, right in [(name, "value"), ("---", "---"), *rows])
