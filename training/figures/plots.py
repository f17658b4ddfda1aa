"""What the figures are made of: pictures laid out to the pixel, scatters, curves, one palette and style."""

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

from app.maths.gaussian import Floats

DPI = 150
PALETTE = [mpl.color_sequences["petroff10"][i] for i in (0, 3, 2, 1, 4, 5, 9, 6, 8, 7)]
"""A color a digit. They stay apart under the usual deficiencies of color vision (Petroff 2021, arXiv:2107.02270); the
order keeps its two greys from 3 and 8, whose latents lie side by side."""
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
"""Between the names of classes, as a share of the axes' width."""
NAMED_CLASSES = 20
"""More would crowd a legend."""
TILE = 56
"""About the side of a tile in pixels: two for each of MNIST's."""
GAP = 4
PLOT_COLORS = 2**16
"""More than any plot has, with its blends."""
MAX_BYTES = 400_000
NEARLY = 12
"""Of 256 levels: colors that pass for one another."""

Pixels = NDArray[np.uint8]
Color = tuple[float, float, float]


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a small PNG: in greys, or in 256 colors, where nobody can tell these from all of them.

    A color picture that would be larger than MAX_BYTES gets 256 colors, too, and if need be a quarter of the pixels.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI)
    image = Image.open(buffer).convert("RGB")
    pixels = np.asarray(image)
    if (pixels == pixels[..., :1]).all():
        image = image.convert("L")
    elif image.getcolors(PLOT_COLORS) is not None:  # to search among a color picture's takes minutes
        few = in_few_colors(image)
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


def in_few_colors(image: Image.Image) -> Image.Image:
    """An RGB image in 256 of its colors, and where one of PALETTE is nearly among them, in that itself."""
    few = image.quantize(256, method=Image.Quantize.MAXCOVERAGE)
    chosen = np.array(few.getpalette()).reshape(-1, 3)
    for color in np.rint(255 * np.array(colors(len(PALETTE)))).astype(np.int64):
        distances = np.abs(chosen - color).max(axis=1)
        if distances.min() < NEARLY:
            chosen[distances.argmin()] = color
    few.putpalette(chosen.ravel().tolist())
    return few


def colors(count: int) -> list[Color]:
    """A color a class: the palette, or as many steps of a rainbow where there are more classes than it has."""
    if count <= len(PALETTE):
        return [mpl.colors.to_rgb(color) for color in PALETTE[:count]]
    return [mpl.colors.to_rgb(color) for color in mpl.colormaps["turbo"](np.linspace(0.03, 0.97, count))]


def settled(lines: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """Limits that the lines' last four fifths fill, so that the first epochs don't take the height from them."""
    rest = np.concatenate([line[len(line) // 5 :] for line in lines])
    margin = 0.1 * (np.ptp(rest) or 1)
    return float(rest.min() - margin), float(rest.max() + margin)


def curves(axes: Axes, epochs: list[float], lines: dict[str, list[float]]) -> None:
    """One loss term over the epochs, a line a split, training first; the first epochs may leave the picture."""
    for (split, line), color in zip(lines.items(), (TRAIN_COLOR, WATCHED_COLOR), strict=True):
        axes.plot(epochs, line, color=color, label=split, marker="o" if len(line) == 1 else None)
    axes.set_ylim(settled([np.array(line) for line in lines.values()]))
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


def scatter(axes: Axes, points: Floats, labels: Pixels | None) -> None:
    """Points `[N, 2]`, colored by their labels `[N]` if they have any, and the circle that holds 95 % of the prior."""
    # In the order of the rows, not of the classes, lest the last class cover the others.
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
    """Write each class's name about where its points `[N, 2]` have their median, apart from one another.

    Names are in the order of the labels.
    """
    medians = np.array([np.median(points[labels == label], axis=0) for label in np.unique(labels)])
    places = apart(medians, NAME_DISTANCE * np.ptp(axes.get_xlim()))
    halo = withStroke(linewidth=2.5, foreground="white")
    size = 12 if max(map(len, names)) == 1 else 9
    for (x, y), name in zip(places, names, strict=True):
        axes.text(x, y, name, ha="center", va="center", fontsize=size, weight="bold", path_effects=[halo])


def apart(points: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """Points `[N, 2]` of which those that are nearer than `distance` push one another away."""
    points = points.astype(np.float64)
    for _ in range(100):
        between = points[:, None] - points
        lengths = np.hypot(between[..., 0], between[..., 1]) + np.eye(len(points))
        push = np.where(lengths < distance, (distance - lengths) / 2, 0) * (1 - np.eye(len(points)))
        points = points + (push[..., None] * between / np.maximum(lengths, 1e-9)[..., None]).sum(axis=1)
    return points


def faint(axes: Axes, points: Floats) -> None:
    """Points `[N, 2]` as a background."""
    axes.scatter(points[:, 0], points[:, 1], s=2, color="0.8", linewidths=0)
    frame(axes, points)


def frame(axes: Axes, points: Floats) -> None:
    """Limit the axes to the square that points `[N, 2]` fill, so that both have one scale and panels one size."""
    low, high = points.min(axis=0), points.max(axis=0)
    centre, reach = (low + high) / 2, 0.53 * ((high - low).max() or 1.0)
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
    """The classes' colors, unless they are too many, and the circle, at the right."""
    names = names if len(names) <= NAMED_CLASSES else []
    dots = [Line2D([], [], marker="o", linestyle="", color=c, markersize=5) for c in colors(len(names))]
    circle = Line2D([], [], color="0.2", linestyle=DASHES, linewidth=1)
    figure.legend([*dots, circle], [*names, "95 % of N(0, I)"], loc="center right")


def tiles(images: Pixels) -> Pixels:
    """Images `[N, C, H, W]` as RGB tiles `[N, h, w, 3]` of about TILE pixels, enlarged or reduced by a whole factor."""
    side = max(images.shape[2:])
    if side > TILE:
        images = _reduced(images, round(side / TILE))
    else:
        factor = round(TILE / side)
        images = images.repeat(factor, axis=2).repeat(factor, axis=3)
    pixels = np.moveaxis(images, 1, 3)
    return np.broadcast_to(pixels, (*pixels.shape[:3], 3))


def _reduced(images: Pixels, factor: int) -> Pixels:
    """Each pixel the mean of `factor` x `factor`."""
    count, channels, height, width = images.shape
    height, width = height // factor, width // factor
    cut = images[:, :, : height * factor, : width * factor]
    blocks = cut.reshape(count, channels, height, factor, width, factor)
    return np.asarray(np.rint(blocks.mean(axis=(3, 5))), np.uint8)


def mosaic(cells: Pixels, columns: int, gap: int = GAP) -> Pixels:
    """Tiles `[N, h, w, 3]` as one picture, row by row, with white gaps; the last row may be short."""
    count, height, width, _ = cells.shape
    rows = -(-count // columns)
    padded = np.full((rows * columns, height + gap, width + gap, 3), 255, np.uint8)
    padded[:count, :height, :width] = cells
    grid = padded.reshape(rows, columns, height + gap, width + gap, 3).swapaxes(1, 2)
    return grid.reshape(rows * (height + gap), columns * (width + gap), 3)[: -gap or None, : -gap or None]


def picture(pixels: Pixels, *, left: int = 0, right: int = 0, top: int = 0, bottom: int = 0) -> tuple[Figure, Axes]:
    """A figure of a picture `[H, W, 3]`, with margins in pixels for the names of the axes.

    Laid out to the pixel, so that none is drawn wider than its neighbour. The axes count the picture's own pixels.
    """
    height, width, _ = pixels.shape
    whole_width, whole_height = left + width + right, bottom + height + top
    figure = Figure(figsize=(whole_width / DPI, whole_height / DPI))
    axes = figure.add_axes((left / whole_width, bottom / whole_height, width / whole_width, height / whole_height))
    axes.imshow(pixels, interpolation="nearest", extent=(0, width, height, 0))
    axes.set(xticks=[], yticks=[], frame_on=False)
    axes.tick_params(length=0)
    return figure, axes
