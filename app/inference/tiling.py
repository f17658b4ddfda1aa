"""Runs large arrays in overlapping tiles of one size, and blends their outputs linearly at the seams. Pure numpy.

Sides are counted in cells: the elements of a latent map. Each cell corresponds to a fixed number of elements along each
side of the input and of the output. Tiles are spread evenly, flush with the edges; each overlaps the next by at least a
quarter, and by up to a half if the graph looks further. In the middle of an overlap one tile fades into the other over
an eighth of a tile; the rest of the overlap is discarded, because there the graph has seen an edge where the image has
none.
"""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.maths.arrays import Arrays

MIN_CELLS = 4
"""Minimum side of a tile in cells, so that a quarter of it is one cell."""
MAX_LEVELS = 1
"""Maximum gray levels by which tiles may change an image that would fit in memory in one piece."""


@dataclass(frozen=True)
class Axis:
    """The tiles along one side of `length` cells; a single one if the side has at most `max_tile` cells, 4 or more."""

    length: int
    max_tile: int
    margin: int = 0
    """Cells to discard at each edge of a tile, if half of the tile is enough for the overlap."""

    @property
    def tile(self) -> int:
        """Side of each tile, in cells."""
        return min(self.length, self.max_tile)

    @property
    def fade(self) -> int:
        """Cells over which one tile fades into the next."""
        return max(1, self.tile // 8)

    @property
    def overlap(self) -> int:
        """Minimum overlap of two tiles, in cells: what both discard, and the fade between."""
        return max(self.tile // 4, min(2 * self.margin + self.fade, self.tile // 2))

    @cached_property
    def starts(self) -> list[int]:
        """First cell of each tile."""
        span = self.length - self.tile
        if not span:
            return [0]
        gaps = -(-span // (self.tile - self.overlap))
        return [round(index * span / gaps) for index in range(gaps + 1)]

    @cached_property
    def fades(self) -> list[int]:
        """First cell of each fade from one tile to the next, in the middle of their overlap."""
        return [after + (before + self.tile - after - self.fade) // 2 for before, after in pairwise(self.starts)]

    def part(self, index: int) -> tuple[int, int]:
        """The first cell that a tile contributes to, and the cell after the last."""
        first = self.fades[index - 1] if index else 0
        last = self.fades[index] + self.fade if index < len(self.fades) else self.length
        return first, last

    def weights(self, index: int, elements: int) -> NDArray[np.float32]:
        """Weights of the tile in the elements of its `part`, `elements` per cell; over all tiles they add up to 1."""
        first, last = self.part(index)
        weights, count = np.ones((last - first) * elements, np.float32), self.fade * elements
        rising = (np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count)
        if index:
            weights[:count] = rising
        if index < len(self.fades):
            weights[-count:] = 1 - rising  # the two fades do not overlap: a part is at least two fades long
        return weights


@dataclass(frozen=True)
class Plan:
    """The tiles of one array `[C, H, W]`."""

    down: Axis
    across: Axis
    elements: int
    """Elements of the input per cell, along each side: 1 for a map, the stride for an image."""

    @classmethod
    def of(cls, height: int, width: int, elements: int, max_side: int, margin: int = 0) -> "Plan":
        """The tiles of `height` x `width` elements, each with sides of at most `max_side`, but at least 4 cells.

        `margin` is the number of cells to discard at each edge of a tile.
        """
        cells = max(MIN_CELLS, max_side // elements)
        return cls(Axis(height // elements, cells, margin), Axis(width // elements, cells, margin), elements)

    def cut(self, row: NDArray[Any], index: int) -> Iterator[NDArray[Any]]:
        """The tiles `[C, h, w]` of one row of tiles of an array `[C, H, W]`, from left to right."""
        size, top = self.elements, self.down.starts[index] * self.elements
        for start in self.across.starts:
            left = start * size
            yield row[:, top : top + self.down.tile * size, left : left + self.across.tile * size]


class Blend:
    """Assembles one output `[C, H, W]` from rows of tiles, from the top down."""

    def __init__(self, plan: Plan, like: NDArray[Any]) -> None:
        """`like` is a row of the output's tiles, `[T, C, h, w]`."""
        self._plan, self._elements = plan, like.shape[2] // plan.down.tile
        height, width = plan.down.length * self._elements, plan.across.length * self._elements
        self.array = np.empty((like.shape[1], height, width), like.dtype)
        self._carried: NDArray[np.float32] | None = None

    def add(self, index: int, tiles: NDArray[Any]) -> None:
        """Add one row of tiles `[T, C, h, w]`; `index` counts up from 0."""
        down, size = self._plan.down, self._elements
        first, last = down.part(index)
        top = down.starts[index]
        strip = self._strip(tiles[:, :, (first - top) * size : (last - top) * size])
        strip *= down.weights(index, size)[:, None]
        if self._carried is not None:
            strip[:, : self._carried.shape[1]] += self._carried
        done = (down.fades[index] if index < len(down.fades) else last) - first
        self._carried = strip[:, done * size :].copy()
        finished = strip[:, : done * size]
        if self.array.dtype.kind == "u":
            finished = np.round(finished)
        self.array[:, first * size : (first + done) * size] = finished

    def _strip(self, tiles: NDArray[Any]) -> NDArray[np.float32]:
        """Blend a row of tiles `[T, C, h, w]` horizontally to `[C, h, W]`."""
        across, size = self._plan.across, self._elements
        strip = np.zeros((*tiles.shape[1:3], across.length * size), np.float32)
        for index, tile in enumerate(tiles):
            first, last = across.part(index)
            left = across.starts[index]
            part = tile[:, :, (first - left) * size : (last - left) * size]
            strip[:, :, first * size : last * size] += part * across.weights(index, size)
        return strip


async def tiled(
    rows: NDArray[Any], plan: Plan, max_tiles: int, run: Callable[[NDArray[Any]], Awaitable[Arrays]]
) -> Arrays:
    """The outputs of `run` for rows `[N, C, H, W]`, computed in tiles, at most `max_tiles` at a time.

    `run` returns outputs `[T, c, h, w]` whose sides are proportional to the tiles'. Only one row of tiles and the
    outputs are in memory at a time.
    """
    outputs: dict[str, list[NDArray[Any]]] = {}
    for row in rows:
        blends: dict[str, Blend] = {}
        for index in range(len(plan.down.starts)):
            tiles = list(plan.cut(row, index))
            firsts = range(0, len(tiles), max_tiles)
            pieces = [await run(np.stack(tiles[first : first + max_tiles])) for first in firsts]
            for name in pieces[0]:
                whole = np.concatenate([piece[name] for piece in pieces])
                blends.setdefault(name, Blend(plan, whole)).add(index, whole)
        for name, blend in blends.items():
            outputs.setdefault(name, []).append(blend.array)
    return {name: np.stack(arrays) for name, arrays in outputs.items()}
