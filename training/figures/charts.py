"""Charts: loss terms over the training, rate against distortion, use of the latent dimensions."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from app.maths.arrays import Doubles
from training.bundling.record import watched
from training.evaluate import ACTIVE_VARIANCE
from training.figures.plots import MARK, PALETTE, TRAIN_COLOR, WATCHED_COLOR, curves, limits
from training.figures.scene import Scene

MIN_BARS = 6
"""Minimum number of bars that the axis has room for, so that one or two bars are not too wide."""
MAX_NUMBERED_BARS = 48
"""Maximum number of bars that are labeled one by one."""
LABELLED_EPOCHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
UNUSED = "0.75"
FAINT = "0.85"
MIN_DISTANCE = 0.06
"""Minimum distance between numbered epochs, as a fraction of the axes."""
MIN_VARIANCE = 1e-6
"""Floor of variances on the logarithmic axis: the precision of the evaluation."""


def draw_training(scene: Scene) -> Figure:
    """Plot the loss terms of both splits over the epochs."""
    terms = {"reconstruction": f"Reconstruction{_kind(scene)}"}
    if scene.manifest.stochastic:
        terms |= {"kl": "KL", "negative_elbo": "Sum: the loss" if _kind(scene) else "Negative ELBO"}
    if "train/negative_iwae" in scene.log:
        terms["negative_iwae"] = "Negative IWAE bound"
    columns = 2 if len(terms) == 4 else len(terms)
    rows = len(terms) // columns
    figure = Figure(figsize=(1.2 + 3.1 * columns, 2.8 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (term, title) in zip(grid.flat, terms.items(), strict=True):
        curves(axes, scene.log["epoch"], {split: scene.log[f"{split}/{term}"] for split in _splits(scene)})
        axes.set_title(title)
    figure.supylabel("nats an image", fontsize=9)
    return figure


def draw_rate_distortion(scene: Scene) -> Figure:
    """Plot KL against reconstruction, one point per epoch, over lines of equal negative ELBO."""
    figure = Figure(figsize=(6.0, 4.8), layout="constrained")
    axes = figure.subplots()
    points = {
        split: (np.array(scene.log[f"{split}/kl"]), np.array(scene.log[f"{split}/reconstruction"]))
        for split in _splits(scene)
    }
    axes.set_xlim(limits([rates for rates, _ in points.values()]))
    axes.set_ylim(limits([distortions for _, distortions in points.values()]))
    _equal_elbo(axes)
    for (split, (rates, distortions)), color in zip(points.items(), (TRAIN_COLOR, WATCHED_COLOR), strict=True):
        axes.plot(rates, distortions, color=color, label=split, linewidth=1.2, marker="o", markersize=3)
    _name_epochs(axes, scene.log["epoch"], *points[watched(scene.log)])
    axes.set_xlabel("rate: KL, nats an image")
    axes.set_ylabel(f"distortion: reconstruction{_kind(scene)}, nats an image")
    lines = [*axes.get_lines()[-2:], Line2D([], [], color=FAINT, linewidth=0.8)]
    names = [*points, "equal sum" if _kind(scene) else "equal negative ELBO"]
    figure.legend(lines, names, loc="outside upper right", ncols=3)
    return figure


def draw_active_units(scene: Scene) -> Figure:
    """Plot the KL of each latent dimension in descending order, above the variance of its posterior means."""
    order, size = scene.order, len(scene.kl)
    variance = np.maximum(scene.variance[order], MIN_VARIANCE)
    active = variance > ACTIVE_VARIANCE
    colors = [PALETTE[0] if is_active else UNUSED for is_active in active]
    figure = Figure(figsize=(min(7.2, 3.2 + 0.16 * size), 4.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.bar(range(size), scene.kl[order], color=colors, width=0.75)
    above.set_ylabel("KL, nats an image")
    above.set_title(f"{active.sum()} of {size} dimensions active")
    below.scatter(range(size), variance, c=colors, s=18, zorder=3)
    below.axhline(ACTIVE_VARIANCE, color=MARK, linewidth=1)
    across = below.get_yaxis_transform()
    below.text(0.01, 0.85 * ACTIVE_VARIANCE, "active above 0.01", va="top", transform=across, color=MARK, fontsize=8)
    below.set_yscale("log")
    below.set_ylim(min(ACTIVE_VARIANCE / 5, variance.min() / 2), 2 * max(1.0, variance.max()))
    below.set_ylabel("variance of means")
    _number(below, order)
    return figure


def _splits(scene: Scene) -> tuple[str, str]:
    return "train", watched(scene.log)


def _kind(scene: Scene) -> str:
    """A note for reconstructions that are not a likelihood; empty for others."""
    grey = scene.manifest.likelihood == "bernoulli" and scene.manifest.training.binarization == "none"
    return " (grey cross entropy)" if grey else ""


def _equal_elbo(axes: Axes) -> None:
    """Draw faint lines of equal sum within the axes' limits, each with its value at its lower end."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for total in MaxNLocator(9, steps=[1, 2, 5, 10]).tick_values(left + bottom, right + top):
        start, end = max(left, total - top), min(right, total - bottom)
        if end - start < 0.15 * (right - left):  # too short, or outside the axes
            continue
        axes.plot([start, end], [total - start, total - end], color=FAINT, linewidth=0.8, zorder=0)
        _write(axes, f"{total:g}", (end, total - end), (-2, 2), ha="right", color="0.55", fontsize=7)


def _name_epochs(axes: Axes, epochs: list[float], rates: Doubles, distortions: Doubles) -> None:
    """Label some epochs at their points: the last one, and visible ones far enough from other labels."""
    wanted = [len(epochs) - 1, *(row for row, epoch in enumerate(epochs) if epoch in LABELLED_EPOCHS)]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    taken: list[Doubles] = []
    numbers: dict[str, Any] = {"color": "0.2", "fontsize": 8}
    for row in wanted:
        place = np.array([(rates[row] - left) / (right - left), (distortions[row] - bottom) / (top - bottom)])
        if ((place < 0) | (place > 1)).any() or any(np.hypot(*(place - other)) < MIN_DISTANCE for other in taken):
            continue
        taken.append(place)
        point = float(rates[row]), float(distortions[row])
        if row == wanted[0]:
            _write(axes, f"epoch {epochs[row]:.0f}", point, (0, -5), ha="center", va="top", **numbers)
        else:
            _write(axes, f"{epochs[row]:.0f}", point, (6, 0), va="center", **numbers)


def _write(axes: Axes, text: str, point: tuple[float, float], offset: tuple[float, float], **properties: Any) -> None:
    """Write text with a halo, at an offset in points from a point of the axes."""
    halo = [withStroke(linewidth=2, foreground="white")]
    axes.annotate(text, point, offset, textcoords="offset points", path_effects=halo, zorder=4, **properties)


def _number(axes: Axes, order: list[int]) -> None:
    """Label the bars by dimension, or the axis by rank if there are too many bars."""
    if len(order) <= MAX_NUMBERED_BARS:
        axes.set_xticks(range(len(order)), map(str, order), fontsize=7)
        axes.set_xlabel("latent dimension")
    else:
        axes.set_xlabel("rank of the latent dimension by KL")
    middle, reach = (len(order) - 1) / 2, max(len(order), MIN_BARS) / 2 + 0.2
    axes.set_xlim(middle - reach, middle + reach)
