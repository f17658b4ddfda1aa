"""A scatter plot: points on a plane, colored by class, as pixels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.codecs.images import Pixels, parse_color, write_text
from app.maths.gaussian import Floats

SIZE = 720
"""Pixels along each side."""
_MARGIN = 48
_RADIUS = 2.6
_OPACITY = 0.75
_TEXT = 15
_PAPER, _INK, _GRID = 255.0, 70.0, 232.0
# Tableau's ten colors, matplotlib's default for classes.
_TABLEAU = "#1f77b4 #ff7f0e #2ca02c #d62728 #9467bd #8c564b #e377c2 #7f7f7f #bcbd22 #17becf"
COLORS = np.array([parse_color(color) for color in _TABLEAU.split()], np.float32)


def scatter(points: Floats, labels: NDArray[np.int64] | None, names: tuple[str, str]) -> Pixels:
    """RGB pixels `[SIZE, SIZE, 3]` of points `[N, 2]`; `names` are the names of the horizontal and the vertical axis.

    Both axes have the same scale, so that the prior looks round. Colors repeat after ten labels.
    """
    canvas = np.full((SIZE, SIZE, 3), _PAPER, np.float32)
    frame = Frame.around(points)
    _draw_grid(canvas, frame)
    classes = np.zeros(len(points), np.int64) if labels is None else labels
    _draw_dots(canvas, frame.place(points), COLORS[classes % len(COLORS)])
    if labels is not None:
        _draw_legend(canvas, np.unique(labels))
    _write(canvas, names[0], SIZE - _MARGIN // 2, SIZE // 2)
    _write(canvas, names[1], SIZE // 2, _MARGIN // 3)
    return np.round(canvas).astype(np.uint8)


@dataclass(frozen=True)
class Frame:
    """The square part of the plane that is shown."""

    center: NDArray[np.float64]
    """`[2]`: the center of the square."""
    extent: float
    """Half of the side of the square."""

    @classmethod
    def around(cls, points: Floats) -> "Frame":
        """The square around all points, with a margin of 4 %."""
        low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
        return cls((low + high) / 2, max(float((high - low).max()) / 2, 1e-3) * 1.04)

    def place(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Rows and columns `[N, 2]`, in pixels, of points `[N, 2]`; the second coordinate grows upward."""
        unit = (points - self.center) / self.extent
        middle, half = SIZE / 2, SIZE / 2 - _MARGIN
        return np.stack([middle - half * unit[:, 1], middle + half * unit[:, 0]], axis=1)

    def ticks(self, axis: int) -> NDArray[np.float64]:
        """About five round numbers along an axis."""
        step = 10.0 ** np.floor(np.log10(self.extent / 2))
        step *= next(factor for factor in (1, 2, 5, 10) if self.extent / (step * factor) <= 3)
        low, high = self.center[axis] - self.extent, self.center[axis] + self.extent
        return np.asarray(np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step + 0.0)  # no -0


def _draw_grid(canvas: Floats, frame: Frame) -> None:
    inside = slice(_MARGIN, SIZE - _MARGIN)
    for axis in (0, 1):
        for value in frame.ticks(axis):
            point = frame.center.copy()
            point[axis] = value
            row, column = np.round(frame.place(point[None])[0]).astype(int)
            if axis == 0:
                canvas[inside, column] = _GRID
                _write(canvas, f"{value:g}", SIZE - _MARGIN + 12, column)
            else:
                canvas[row, inside] = _GRID
                _write(canvas, f"{value:g}", row, _MARGIN - 18)


def _draw_dots(canvas: Floats, places: NDArray[np.float64], colors: Floats) -> None:
    """Draw discs with soft edges, each over the previous ones."""
    reach = int(_RADIUS) + 2
    rows, columns = np.round(places).astype(int).T
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            distance = np.hypot(rows + down - places[:, 0], columns + right - places[:, 1])
            cover = (_OPACITY * np.clip(_RADIUS + 0.5 - distance, 0, 1)).astype(np.float32)[:, None]
            here = rows + down, columns + right
            canvas[here] = (1 - cover) * canvas[here] + cover * colors


def _draw_legend(canvas: Floats, labels: NDArray[np.int64]) -> None:
    """Draw a dot and a number for each class, in a line at the top."""
    shown = labels[:20]
    columns = np.linspace(_MARGIN + 20, SIZE - _MARGIN - 20, len(shown)) if len(shown) > 1 else np.array([SIZE / 2])
    places = np.stack([np.full(len(shown), _MARGIN / 2), columns], axis=1)
    for _ in range(3):  # drawn three times, because a single dot is faint
        _draw_dots(canvas, places, COLORS[shown % len(COLORS)])
    for label, column in zip(shown, columns, strict=True):
        _write(canvas, str(label), _MARGIN // 2, int(column) + 14)


def _write(canvas: Floats, text: str, row: int, column: int) -> None:
    """Draw a text centered at a row and column, moved so that it lies on the canvas."""
    ink = write_text(text, _TEXT).astype(np.float32)[..., None] / 255
    height, width = ink.shape[:2]
    top = int(np.clip(row - height // 2, 0, SIZE - height))
    left = int(np.clip(column - width // 2, 0, SIZE - width))
    part = canvas[top : top + height, left : left + width]
    part[:] = (1 - ink) * part + ink * _INK
