"""What large images lose by being run in tiles, as the server runs them, and how far tiles must overlap."""

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference.session import Session
from app.inference.tiling import MIN_CELLS, Plan, tiled
from app.maths.gaussian import Floats
from app.maths.likelihood import Pixels
from training.importing.checks.latents import PATIENCE_SECONDS, SIDES, LatentInfo
from training.importing.sources.onnx_files import run_session

TILE_SIDES = (512, 256, 128)
"""Sides of the tiles to measure, in pixels. The first is the server's default; a slow model is measured with others."""
HEIGHT, WIDTH = 0.5, 1.75
"""Sides of the measured image, in tiles: two tiles that overlap by a quarter, or three that overlap by more."""
PASSES = 5
"""The measurement takes about as long as so many passes of the measured image."""
MAX_CELLS = 4096
"""Maximum cells of the measured image: attention takes memory for the square of them."""
MAX_LEVELS, MAX_SHARE = 1.0, 0.02
"""Outputs of a cell are those of the whole image up to this many gray levels, or this share of a latent's deviation."""


@dataclass(frozen=True)
class TileCheck:
    """A large image in tiles, compared with the same image in one piece."""

    tile: int
    """Side of the tiles, in pixels."""
    size: tuple[int, int]
    """Height and width of the image, in pixels."""
    margin: int
    """Cells to discard at an edge of a tile."""
    levels: int
    """Largest difference of a pixel, in gray levels."""
    share: float
    """Share of the pixels that differ by more than one gray level."""

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} of pixels differ by more than one gray level, the worst by {self.levels} (an image of "
            f"{self.size[0]} x {self.size[1]} in tiles of {self.tile}, with a margin of {self.margin} cells)"
        )


@dataclass(frozen=True)
class _Model:
    encoder: Session
    decoder: Session
    stride: int

    def encode(self, images: NDArray[Any]) -> Floats:
        return run_session(self.encoder, images)["mean"]

    def decode(self, latents: NDArray[Any]) -> Pixels:
        return run_session(self.decoder, latents)["image"]

    def in_tiles(self, images: Pixels, tile: int, margin: int) -> Pixels:
        """Reconstructions of images, encoded and decoded in tiles."""
        height, width = images.shape[2:]
        plan = Plan.of(height, width, self.stride, tile, margin)
        latents = _run(self.encode, images, plan)
        cells = height // self.stride, width // self.stride
        decoded: Pixels = _run(self.decode, latents, Plan.of(*cells, 1, tile // self.stride, margin))
        return decoded


def _run(run: Any, rows: NDArray[Any], plan: Plan) -> Any:
    async def run_tiles(tiles: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return {"output": run(tiles)}

    return asyncio.run(tiled(rows, plan, 1, run_tiles))["output"]


def check_tiles(encoder: Session, decoder: Session, latents: LatentInfo, images: Pixels) -> TileCheck | None:
    """Run a mosaic of images uint8 `[N, C, H, W]` in one piece and in tiles, with the margin that the graphs need.

    The margin is 0 if it does not halve the differences: the outputs of some graphs depend on the whole image.

    Raises:
        ImportRefused: a graph does not run.
    """
    if latents.stride is None or latents.shape[1] is not None:
        return None
    model, tile = _Model(encoder, decoder, latents.stride), _affordable_tile(latents)
    sides = (int(tile * part) // latents.stride * latents.stride for part in (HEIGHT, WIDTH))
    image = _mosaic(images, *sides)
    whole = model.encode(image)
    decoded = model.decode(whole)
    without = _compare(model, image, decoded, tile, margin=0)
    margin = _find_margin(model, image, whole, decoded)
    if not margin or (not without.share and without.levels <= MAX_LEVELS):
        return without
    with_margin = _compare(model, image, decoded, tile, margin)
    is_better = 2 * with_margin.levels <= without.levels or 2 * with_margin.share <= without.share
    return with_margin if is_better else without


def _affordable_tile(latents: LatentInfo) -> int:
    """Side of the largest tiles for which the measurement takes a minute and little memory, else of the smallest."""
    stride = latents.stride or 1

    def is_affordable(tile: int) -> bool:
        seconds = PASSES * latents.seconds * HEIGHT * WIDTH * (tile / SIDES[0]) ** 2
        return seconds <= PATIENCE_SECONDS and HEIGHT * WIDTH * (tile / stride) ** 2 <= MAX_CELLS

    return max(next(filter(is_affordable, TILE_SIDES), TILE_SIDES[-1]), MIN_CELLS * stride)


def _mosaic(images: Pixels, height: int, width: int) -> Pixels:
    """One image `[1, C, height, width]` of the images, side by side.

    It begins within an image: at the edges of tiles, the synthetic images would be as black as the graphs' padding.
    """
    channels, *sides = images.shape[1:]
    down, across = -(-height // sides[0]), -(-width // sides[1])
    grid = np.resize(images, (down, across, channels, *sides)).transpose(2, 0, 3, 1, 4)
    rolled = np.roll(grid.reshape(1, channels, down * sides[0], -1), sides[1] // 3, axis=3)
    return np.ascontiguousarray(rolled[:, :, :height, :width])


def _compare(model: _Model, image: Pixels, decoded: Pixels, tile: int, margin: int) -> TileCheck:
    difference = np.abs(model.in_tiles(image, tile, margin).astype(np.int16) - decoded)
    return TileCheck(
        tile,
        (image.shape[2], image.shape[3]),
        margin,
        int(difference.max()),
        float((difference > MAX_LEVELS).any(axis=1).mean(dtype=np.float64)),
    )


def _find_margin(model: _Model, image: Pixels, whole: Floats, decoded: Pixels) -> int:
    """Cells from a cut to where the outputs are those of the whole image, in the encoder or in the decoder."""
    cells = whole.shape[3] // 2
    part, levels = model.encode(image[:, :, :, : cells * model.stride]), model.decode(whole[:, :, :, :cells])
    moved = np.abs(part - whole[:, :, :, :cells]).max(axis=(0, 1, 2)) / max(float(whole.std()), 1e-6)
    changed = np.abs(levels.astype(np.int16) - decoded[:, :, :, : cells * model.stride]).max(axis=(0, 1, 2))
    wrong = (moved > MAX_SHARE) | (changed.reshape(cells, model.stride).max(axis=1) > MAX_LEVELS)
    return cells - int(np.argmax(wrong)) if wrong.any() else 0
