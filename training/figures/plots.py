"""Parts of the figures: images with exact pixels, scatter plots, curves, palette and style."""

import io
from collections.abc import Sequence
from pathlib import Path
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
from PIL import Image

from app.codecs.images import tile
from app.maths.arrays import Floats, Pixels

DPI = 150
PALETTE = [mpl.color_sequences["petroff10"][i] for i in (0, 3, 2, 1, 4, 5, 9, 6, 8, 7)]
"""A color per digit, distinct under common color vision deficiencies (Petroff 2021, arXiv:2107.02270). In this order
3 and 8, whose latents are close, do not get its two grays."""
MARK = PALETTE[2]
TRAIN_COLOR, WATCHED_COLOR = "0.55", PALETTE[0]
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
NAME_DISTANCE = 0.055
"""Minimum distance between classes' names, as a fraction of the axes' width."""
MAX_NAMED_CLASSES = 20
"""Maximum number of classes in a legend."""
TILE = 56
"""Approximate side of a tile in pixels: twice MNIST's."""
GAP = 4
PLOT_COLORS = 2**16
"""More colors than any plot has, blends included."""
MAX_BYTES = 400_000

Color = tuple[float, float, float]


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a small PNG: in grays, or in 256 colors if these look the same.

    A color image above MAX_BYTES is also reduced to 256 colors, and if needed to a quarter of the pixels.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI)
    image = Image.open(buffer).convert("RGB")
    pixels = np.asarray(image)
    if (pixels == pixels[..., :1]).all():
        image = image.convert("L")
    elif image.getcolors(PLOT_COLORS) is not None:  # quantizing more colors takes minutes
        few = image.quantize(256, method=Image.Quantize.MAXCOVERAGE)
        if np.abs(np.asarray(few.convert("RGB"), np.int16) - pixels).mean() < 1:
            image = few
    content = _png(image)
    for factor in (1, 2):
        if len(content) > MAX_BYTES and image.mode == "RGB":
            content = _png(image.reduce(factor).quantize(256))
    path.write_bytes(content)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, dpi=(DPI, DPI))
    return buffer.getvalue()


def colors(count: int) -> list[Color]:
    """A color per class: the palette, or steps of a rainbow if there are more classes."""
    if count <= len(PALETTE):
        return [mpl.colors.to_rgb(color) for color in PALETTE[:count]]
    return [mpl.colors.to_rgb(color) for color in mpl.colormaps["turbo"](np.linspace(0.03, 0.97, count))]


def limits(lines: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Axis limits that fit the last four fifths of the lines: the first epochs would flatten the rest."""
    rest = np.concatenate([line[len(line) // 5 :] for line in lines])
    margin = 0.1 * (np.ptp(rest) or 1)
    return float(rest.min() - margin), float(rest.max() + margin)


def curves(axes: Axes, epochs: list[float], lines: dict[str, list[float]]) -> None:
    """Plot one loss term over the epochs, a line per split, training first. The first epochs may be out of view."""
    for (split, line), color in zip(lines.items(), (TRAIN_COLOR, WATCHED_COLOR), strict=True):
        axes.plot(epochs, line, color=color, label=split, marker="o" if len(line) == 1 else None)
    axes.set_ylim(limits([np.array(line) for line in lines.values()]))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend()


def squares(*sides: float, right: float = 0.15) -> tuple[Figure, list[Axes]]:
    """A row of square axes with sides in inches, each with room for ticks, labels and title, and a right margin.

    matplotlib's layouts are not used: they cut off the labels of axes whose aspect is fixed.
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


def scatter(axes: Axes, points: Floats, labels: Pixels | None) -> None:
    """Plot points `[N, 2]`, colored by their labels `[N]` if given, and the circle that holds 95 % of the prior."""
    # In the order of the rows, not of the classes: otherwise the last class would cover the others.
    area = np.clip(20_000 / len(points), 3, 16)
    axes.scatter(points[:, 0], points[:, 1], s=area, c=_point_colors(len(points), labels), linewidths=0, alpha=0.7)
    axes.add_patch(Ellipse((0, 0), 2 * PRIOR_RADIUS, 2 * PRIOR_RADIUS, fill=False, color="0.2", linestyle=DASHES))
    frame(axes, np.concatenate([points, [[-PRIOR_RADIUS, -PRIOR_RADIUS], [PRIOR_RADIUS, PRIOR_RADIUS]]]))


def _point_colors(count: int, labels: Pixels | None) -> list[Color]:
    if labels is None:
        return colors(1) * count
    classes, places = np.unique(labels, return_inverse=True)
    palette = colors(len(classes))
    return [palette[place] for place in places]


def name_classes(axes: Axes, points: Floats, labels: Pixels, names: list[str]) -> None:
    """Write each class's name near the median of its points `[N, 2]`, without overlaps.

    Names are in the order of the labels.
    """
    medians = np.array([np.median(points[labels == label], axis=0) for label in np.unique(labels)])
    places = spread(medians, NAME_DISTANCE * np.ptp(axes.get_xlim()))
    halo = withStroke(linewidth=2.5, foreground="white")
    size = 12 if max(map(len, names)) == 1 else 9
    for (x, y), name in zip(places, names, strict=True):
        axes.text(x, y, name, ha="center", va="center", fontsize=size, weight="bold", path_effects=[halo])


def spread(points: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """Move points `[N, 2]` that are closer than `distance` away from each other."""
    points = points.astype(np.float64)
    for _ in range(100):
        between = points[:, None] - points
        lengths = np.hypot(between[..., 0], between[..., 1]) + np.eye(len(points))
        push = np.where(lengths < distance, (distance - lengths) / 2, 0) * (1 - np.eye(len(points)))
        points = points + (push[..., None] * between / np.maximum(lengths, 1e-9)[..., None]).sum(axis=1)
    return points


def plot_background(axes: Axes, points: Floats) -> None:
    """Plot points `[N, 2]` in light gray."""
    axes.scatter(points[:, 0], points[:, 1], s=2, color="0.8", linewidths=0)
    frame(axes, points)


def frame(axes: Axes, points: Floats) -> None:
    """Limit the axes to a square around points `[N, 2]`, so that both axes have one scale."""
    low, high = points.min(axis=0), points.max(axis=0)
    centre, reach = (low + high) / 2, 0.53 * ((high - low).max() or 1.0)
    axes.set_xlim(centre[0] - reach, centre[0] + reach)
    axes.set_ylim(centre[1] - reach, centre[1] + reach)
    axes.set_aspect("equal")


def ellipses(axes: Axes, mean: Floats, std: Floats) -> None:
    """Draw ellipses of one and two standard deviations `[2]` around a mean `[2]`."""
    for factor in (1, 2):
        axes.add_patch(Ellipse(tuple(mean), *(2 * factor * std), color=PALETTE[0], alpha=0.35, linewidth=0))
    axes.plot(*mean, "o", color=MARK, markersize=2.5)


def close_up(axes: Axes, mean: Floats, std: Floats) -> None:
    """Draw the same ellipses enlarged in a corner, up to three standard deviations."""
    mean, std = mean.astype(np.float64), std.astype(np.float64)  # float32 cannot tell 1 + 1e-8 from 1
    inset = axes.inset_axes((0.68, 0.68, 0.32, 0.32))
    ellipses(inset, mean, std)
    frame(inset, np.stack([mean - 3 * std, mean + 3 * std]))
    inset.set(xticks=[], yticks=[])
    inset.spines[:].set_visible(True)
    axes.indicate_inset_zoom(inset, edgecolor="0.3")


def name_axes(axes: Axes, dims: list[int]) -> None:
    axes.set_xlabel(f"latent dimension {dims[0]}")
    axes.set_ylabel(f"latent dimension {dims[1]}")


def legend(figure: Figure, names: list[str]) -> None:
    """Draw the legend at the right: the classes' colors, unless there are too many, and the circle."""
    names = names if len(names) <= MAX_NAMED_CLASSES else []
    dots = [Line2D([], [], marker="o", linestyle="", color=c, markersize=5) for c in colors(len(names))]
    circle = Line2D([], [], color="0.2", linestyle=DASHES, linewidth=1)
    figure.legend([*dots, circle], [*names, "95 % of N(0, I)"], loc="center right")


def tiles(images: Pixels) -> Pixels:
    """Images uint8 `[N, C, H, W]` as RGB tiles `[N, h, w, 3]` of about TILE pixels, scaled by an integer factor."""
    pixels, side = np.moveaxis(images, 1, 3), max(images.shape[2:])
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    if side > TILE:
        return np.stack([np.asarray(Image.fromarray(tile).reduce(round(side / TILE))) for tile in pixels])
    factor = round(TILE / side)
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2)


def mosaic(cells: Pixels, columns: int, gap: int = GAP) -> Pixels:
    """Tiles `[N, h, w, 3]` as one image, row by row, with white gaps; the last row may be short."""
    padding = ((0, -len(cells) % columns), (0, gap), (0, gap), (0, 0))
    return tile(np.pad(cells, padding, constant_values=255), columns)[: -gap or None, : -gap or None]


def image_figure(
    pixels: Pixels, *, left: int = 0, right: int = 0, top: int = 0, bottom: int = 0
) -> tuple[Figure, Axes]:
    """A figure of an image `[H, W, 3]`, with margins in pixels for the axes' labels.

    One pixel of the figure is one pixel of the image, so that all have the same width. The axes' unit is that pixel.
    """
    height, width, _ = pixels.shape
    whole_width, whole_height = left + width + right, bottom + height + top
    figure = Figure(figsize=(whole_width / DPI, whole_height / DPI))
    axes = figure.add_axes((left / whole_width, bottom / whole_height, width / whole_width, height / whole_height))
    axes.imshow(pixels, interpolation="nearest", extent=(0, width, height, 0))
    axes.set(xticks=[], yticks=[], frame_on=False)
    axes.tick_params(length=0)
    return figure, axes
