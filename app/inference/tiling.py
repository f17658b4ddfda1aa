"""Large arrays in overlapping tiles of one size, whose outputs are blended linearly at the seams. Pure numpy.

Sides are counted in cells, which are the pixels of a map: what lies behind a cell, in the input and in the output, is
so many elements along each side. Tiles are spread evenly, flush with the edges; at least a quarter of each overlaps the
next. In the middle of an overlap one tile fades into the other over an eighth of a tile; the rest of the tile is left
out, for there a net sees an edge that is none.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.maths.arrays import Arrays

MIN_CELLS = 4
"""Cells of a tile, so that a quarter of them is one."""


@dataclass(frozen=True)
class Axis:
    """Tiles along one side of `length` cells; one of them, where the side is not longer than `longest`, 4 or more."""

    length: int
    longest: int

    @property
    def tile(self) -> int:
        """Cells of each."""
        return min(self.length, self.longest)

    @property
    def fade(self) -> int:
        """Cells over which one fades into the next."""
        return max(1, self.tile // 8)

    @cached_property
    def starts(self) -> list[int]:
        """First cell of each."""
        span = self.length - self.tile
        if not span:
            return [0]
        gaps = -(-span // (self.tile - self.tile // 4))
        return [round(index * span / gaps) for index in range(gaps + 1)]

    @cached_property
    def fades(self) -> list[int]:
        """First cell of each fade from one tile to the next: in the middle of what they share."""
        return [after + (before + self.tile - after - self.fade) // 2 for before, after in pairwise(self.starts)]

    def part(self, index: int) -> tuple[int, int]:
        """The cells that a tile has a share in, from the first to the one behind the last."""
        first = self.fades[index - 1] if index else 0
        last = self.fades[index] + self.fade if index < len(self.fades) else self.length
        return first, last

    def weights(self, index: int, elements: int) -> NDArray[np.float32]:
        """The tile's share in each of the `elements` a cell of its part; those of all tiles add up to 1."""
        first, last = self.part(index)
        weights, count = np.ones((last - first) * elements, np.float32), self.fade * elements
        rising = (np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count)
        if index:
            weights[:count] = rising
        if index < len(self.fades):
            weights[-count:] = 1 - rising  # no tile fades on both sides of one cell: a part is two fades long, or more
        return weights


@dataclass(frozen=True)
class Plan:
    """The tiles of one array `[C, H, W]`."""

    down: Axis
    across: Axis
    elements: int
    """Of the input, a cell along each side: 1 of a map, the stride of an image."""

    @classmethod
    def of(cls, height: int, width: int, elements: int, longest: int) -> "Plan":
        """Of an array of so many elements a side, in tiles of at most `longest` of them, but four cells in any case."""
        cells = max(MIN_CELLS, longest // elements)
        return cls(Axis(height // elements, cells), Axis(width // elements, cells), elements)

    def cut(self, row: NDArray[Any], index: int) -> Iterator[NDArray[Any]]:
        """Tiles `[C, h, w]` of the index-th row of tiles of an array `[C, H, W]`, from left to right."""
        size, top = self.elements, self.down.starts[index] * self.elements
        for start in self.across.starts:
            left = start * size
            yield row[:, top : top + self.down.tile * size, left : left + self.across.tile * size]


class Blend:
    """One output `[C, H, W]`, made from rows of tiles as they come, from the top down."""

    def __init__(self, plan: Plan, like: NDArray[Any]) -> None:
        """`like` are the output's tiles `[T, C, h, w]`."""
        self._plan, self._elements = plan, like.shape[2] // plan.down.tile
        height, width = plan.down.length * self._elements, plan.across.length * self._elements
        self.array = np.empty((like.shape[1], height, width), like.dtype)
        self._carried: NDArray[np.float32] | None = None

    def add(self, index: int, tiles: NDArray[Any]) -> None:
        """Put in the index-th row of tiles, `[T, C, h, w]`."""
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
        """A row of tiles `[T, C, h, w]` side by side, `[C, h, W]`."""
        across, size = self._plan.across, self._elements
        strip = np.zeros((*tiles.shape[1:3], across.length * size), np.float32)
        for index, tile in enumerate(tiles):
            first, last = across.part(index)
            left = across.starts[index]
            part = tile[:, :, (first - left) * size : (last - left) * size]
            strip[:, :, first * size : last * size] += part * across.weights(index, size)
        return strip


async def tiled(rows: NDArray[Any], plan: Plan, most: int, run: Callable[[NDArray[Any]], Awaitable[Arrays]]) -> Arrays:
    """What `run` gives of rows `[N, C, H, W]`, as if at once: it is given their tiles, `most` at a time, and answers
    outputs `[T, c, h, w]` whose sides are proportional to the tiles'.

    A row of tiles is in memory at a time, and the outputs.
    """
    outputs: dict[str, list[NDArray[Any]]] = {}
    for row in rows:
        blends: dict[str, Blend] = {}
        for index in range(len(plan.down.starts)):
            tiles = list(plan.cut(row, index))
            pieces = [piece async for piece in _in_turn(tiles, most, run)]
            for name in pieces[0]:
                whole = np.concatenate([piece[name] for piece in pieces])
                blends.setdefault(name, Blend(plan, whole)).add(index, whole)
        for name, blend in blends.items():
            outputs.setdefault(name, []).append(blend.array)
    return {name: np.stack(arrays) for name, arrays in outputs.items()}


async def _in_turn(
    tiles: list[NDArray[Any]], most: int, run: Callable[[NDArray[Any]], Awaitable[Arrays]]
) -> AsyncIterator[Arrays]:
    for first in range(0, len(tiles), most):
        yield await run(np.stack(tiles[first : first + most]))
