"""What the figures are made of: pictures laid out to the pixel, scatters, curves, one palette and style."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from app.gaussian import Floats

DPI = 150
PALETTE = [mpl.color_sequences["petroff10"][i] for i in (0, 3, 2, 1, 4, 5, 9, 6, 8, 7)]
"""A colour a digit. They stay apart under the usual deficiencies of colour vision (Petroff 2021, arXiv:2107.02270); the
order keeps its two greys from 3 and 8, whose latents lie side by side."""
MARK = PALETTE[2]
TRAIN_COLOUR, TEST_COLOUR = "0.55", PALETTE[0]
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "0.5",
    "xtick.color": "0.35",
    "ytick.color": "0.35",
    "legend.frameon": False,
}
DASHES = (0, (4, 3))
PRIOR_RADIUS = 2.4477
"""Radius of the circle that holds 95 % of N(0, I) in two dimensions: the square root of -2 log 0.05."""


def curves(axes: Axes, log: dict[str, list[float]], term: str) -> None:
    """One loss term over the epochs; the first epochs may leave the picture, where the later ones need the height."""
    values = {split: np.array(log[f"{split}/{term}"]) for split in ("train", "test")}
    for (split, line), colour in zip(values.items(), (TRAIN_COLOUR, TEST_COLOUR), strict=True):
        axes.plot(log["epoch"], line, color=colour, label=split, marker="o" if len(line) == 1 else None)
    settled = np.concatenate([line[len(line) // 5 :] for line in values.values()])
    margin = 0.1 * (np.ptp(settled) or 1)
    axes.set_ylim(settled.min() - margin, settled.max() + margin)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def squares(*sides: float, right: float = 0.15) -> tuple[Figure, list[Axes]]:
    """A row of square axes with sides in inches, each with room for ticks, names and title; `right` is left free.

    By hand, because matplotlib's layouts lose the names of axes whose aspect is fixed.
    """
    left, bottom, top = 0.65, 0.55, 0.35
    width, height = sum(sides) + left * len(sides) + right, bottom + max(sides) + top
    figure = Figure(figsize=(width, height))
    axes, x = [], 0.0
    for side in sides:
        x, y = x + left, bottom + (max(sides) - side) / 2
        axes.append(figure.add_axes((x / width, y / height, side / width, side / height)))
        x += side
    return figure, axes


def scatter(axes: Axes, points: Floats, labels: NDArray[np.uint8]) -> None:
    """Points `[N, 2]` in their class's colour, and the circle that holds 95 % of the prior."""
    # In the order of the rows, not of the classes, lest the last class cover the others.
    axes.scatter(points[:, 0], points[:, 1], s=3, c=[PALETTE[label] for label in labels], linewidths=0, alpha=0.7)
    axes.add_patch(Ellipse((0, 0), 2 * PRIOR_RADIUS, 2 * PRIOR_RADIUS, fill=False, color="0.2", linestyle=DASHES))
    frame(axes, np.concatenate([points, [[-PRIOR_RADIUS, -PRIOR_RADIUS], [PRIOR_RADIUS, PRIOR_RADIUS]]]))


def name_classes(axes: Axes, points: Floats, labels: NDArray[np.uint8]) -> None:
    """Write each class's digit where its points `[N, 2]` have their median."""
    for label in np.unique(labels):
        x, y = np.median(points[labels == label], axis=0)
        halo = withStroke(linewidth=2.5, foreground="white")
        axes.text(x, y, str(label), ha="center", va="center", fontsize=12, weight="bold", path_effects=[halo])


def faint(axes: Axes, points: Floats) -> None:
    """Points `[N, 2]` as a background."""
    axes.scatter(points[:, 0], points[:, 1], s=2, color="0.8", linewidths=0)
    frame(axes, points)


def frame(axes: Axes, points: Floats) -> None:
    """Limit the axes to the square that points `[N, 2]` fill, so that both have one scale and panels one size."""
    low, high = points.min(axis=0), points.max(axis=0)
    centre, reach = (low + high) / 2, 0.53 * (high - low).max()
    axes.set_xlim(centre[0] - reach, centre[0] + reach)
    axes.set_ylim(centre[1] - reach, centre[1] + reach)
    axes.set_aspect("equal")


def ellipses(axes: Axes, mean: Floats, std: Floats) -> None:
    """One and two standard deviations `[2]` about a mean `[2]`."""
    for factor in (1, 2):
        axes.add_patch(Ellipse(tuple(mean), *(2 * factor * std), color=PALETTE[0], alpha=0.35, linewidth=0))
    axes.plot(*mean, "o", color=MARK, markersize=2.5)


def close_up(axes: Axes, mean: Floats, std: Floats) -> None:
    """The same ellipses large in a corner, three standard deviations each way."""
    inset = axes.inset_axes((0.68, 0.68, 0.32, 0.32))
    ellipses(inset, mean, std)
    frame(inset, np.stack([mean - 3 * std, mean + 3 * std]))
    inset.set(xticks=[], yticks=[])
    inset.spines[:].set_visible(True)
    axes.indicate_inset_zoom(inset, edgecolor="0.3")


def name_axes(axes: Axes, dims: list[int]) -> None:
    axes.set_xlabel(f"latent dimension {dims[0]}")
    axes.set_ylabel(f"latent dimension {dims[1]}")


def legend(figure: Figure) -> None:
    """The classes' colours, and the circle, at the right."""
    dots = [Line2D([], [], marker="o", linestyle="", color=colour, markersize=5) for colour in PALETTE]
    circle = Line2D([], [], color="0.2", linestyle=DASHES, linewidth=1)
    texts = [*map(str, range(len(PALETTE))), "95 % of N(0, I)"]
    figure.legend([*dots, circle], texts, loc="center right")


def mosaic(images: NDArray[np.uint8], columns: int, gap: int = 2) -> NDArray[np.uint8]:
    """Images `[N, 1, H, W]` as one grey picture, row by row, with white gaps."""
    count, _, height, width = images.shape
    padded = np.full((count, height + gap, width + gap), 255, np.uint8)
    padded[:, :height, :width] = images[:, 0]
    grid = padded.reshape(-1, columns, height + gap, width + gap).swapaxes(1, 2)
    return grid.reshape(-1, columns * (width + gap))[: -gap or None, : -gap or None]


def picture(tiles: NDArray[np.uint8], *, scale: int = 2, left: int = 0, bottom: int = 0) -> tuple[Figure, Axes]:
    """A figure of a grey picture, `scale` pixels a pixel, with margins in pixels for the names of the axes.

    Laid out to the pixel, so that none is drawn wider than its neighbour. The axes count the picture's own pixels.
    """
    height, width = (scale * size for size in tiles.shape)
    whole_width, whole_height = left + width, bottom + height
    figure = Figure(figsize=(whole_width / DPI, whole_height / DPI))
    axes = figure.add_axes((left / whole_width, bottom / whole_height, width / whole_width, height / whole_height))
    axes.imshow(
        tiles, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=(0, tiles.shape[1], tiles.shape[0], 0)
    )
    axes.set(xticks=[], yticks=[], frame_on=False)
    axes.tick_params(length=0)
    return figure, axes
