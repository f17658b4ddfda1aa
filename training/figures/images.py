"""Figures of decoded images."""

from statistics import NormalDist

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from app.maths import gaussian
from training.figures.plots import GAP, MARK, image_figure, mosaic, name_axes, tiles
from training.figures.scene import Scene

SEED = 0
COLUMNS = 10
TEMPERATURES = (0.6, 1.0, 1.4)
SAMPLES_A_SIDE = 6
PAIRS = ((0, 6), (1, 7), (3, 8), (4, 9), (5, 2))
"""Indices of the examples that interpolation.png connects. For MNIST, the ten examples are one of each digit."""
STEPS = 12
REACH = np.linspace(-3, 3, 13, dtype=np.float32)
"""Values of a traversed dimension, in standard deviations of the prior."""
MAX_TRAVERSED = 16
MANIFOLD_SIDE = 20
MAX_LABEL_ROWS = 20
PANEL_GAP = 24


def draw_samples(scene: Scene) -> Figure:
    """Decode the same draws from N(0, I) at three temperatures, side by side, each below its title."""
    n, shape = SAMPLES_A_SIDE, (len(scene.kl),)
    draws = [gaussian.sample_prior(SEED, n * n, shape, temperature=t) for t in TEMPERATURES]
    panels = np.stack([mosaic(tiles(scene.graphs.decode(latents)), columns=n) for latents in draws])
    figure, axes = image_figure(mosaic(panels, len(panels), PANEL_GAP), top=40)
    width = panels.shape[2]
    for index, temperature in enumerate(TEMPERATURES):
        middle = index * (width + PANEL_GAP) + width / 2
        axes.text(middle, -10, f"temperature {temperature}", ha="center", va="bottom", fontsize=10)
    return figure


def draw_aggregate(scene: Scene) -> Figure:
    """Decode draws from the aggregated posterior: a named row per label, or ten rows without labels."""
    assert scene.mixture is not None
    labels = [int(label) for label in np.unique(scene.mixture.labels)][:MAX_LABEL_ROWS]
    if labels[0] < 0:  # fitted without labels
        latents = scene.mixture.sample(SEED, COLUMNS * COLUMNS)
        return image_figure(mosaic(tiles(scene.graphs.decode(latents)), COLUMNS))[0]
    latents = np.concatenate([scene.mixture.sample(SEED, COLUMNS, label=label) for label in labels])
    cells = tiles(scene.graphs.decode(latents))
    names = [scene.name_of(label) for label in labels]
    figure, axes = image_figure(mosaic(cells, COLUMNS), left=_margin(names))
    _name_rows(axes, names, cells.shape[1])
    return figure


def draw_reconstructions(scene: Scene) -> Figure:
    """Show 20 test images (two per class if there are ten classes), each above its reconstruction."""
    rows = scene.examples(2 * COLUMNS)
    images, decoded = scene.test.images[rows], scene.graphs.decode(scene.posterior.mean[rows])
    lines = [pixels[at : at + COLUMNS] for at in range(0, len(rows), COLUMNS) for pixels in (images, decoded)]
    parts = np.stack([mosaic(tiles(line), min(COLUMNS, len(rows))) for line in lines])
    names = ["image", "decoded"] * (len(lines) // 2)
    figure, axes = image_figure(mosaic(parts, columns=1), left=_margin(names))
    _name_rows(axes, names, parts.shape[1])
    return figure


def draw_interpolation(scene: Scene) -> Figure:
    """Decode the straight line between the posterior means of pairs of test images, a row per pair."""
    rows = scene.examples(COLUMNS)
    pairs = [[rows[i] for i in pair] for pair in PAIRS if max(pair) < len(rows)] or [[rows[0], rows[-1]]]
    latents = np.concatenate([gaussian.interpolate(scene.posterior.mean[pair], STEPS, "lerp") for pair in pairs])
    return image_figure(mosaic(tiles(scene.graphs.decode(latents)), columns=STEPS))[0]


def draw_manifold(scene: Scene) -> Figure:
    """Decode 20 x 20 points of a latent plane, evenly spaced under the prior."""
    n = MANIFOLD_SIDE
    pixels = mosaic(tiles(scene.graphs.decode(gaussian.manifold_grid(n))), columns=n, gap=0)
    figure, axes = image_figure(pixels, left=100, bottom=70)
    side, values = len(pixels), np.arange(-1.5, 2, 0.5)
    places = np.array([((NormalDist().cdf(value) - 0.05) / 0.9 * (n - 1) + 0.5) / n * side for value in values])
    axes.set_xticks(places, [_number(value) for value in values])
    axes.set_yticks(side - places, [_number(value) for value in values])
    name_axes(axes, scene.dims)
    return figure


def draw_traversals(scene: Scene) -> Figure:
    """Decode a test image's posterior mean with one dimension varied per row, in order of decreasing KL."""
    dims, mean = scene.order[:MAX_TRAVERSED], scene.posterior.mean[scene.specimen]
    latents = np.tile(mean, (len(dims), len(REACH), 1))
    for row, dim in enumerate(dims):
        latents[row, :, dim] = REACH
    cells = tiles(scene.graphs.decode(latents.reshape(-1, len(mean))))
    height, width = cells.shape[1:3]
    figure, axes = image_figure(mosaic(cells, len(REACH)), left=155, top=40)
    _name_rows(axes, [f"$z_{{{dim}}}$, {scene.kl[dim]:.2f} nats" for dim in dims], height)
    axes.xaxis.tick_top()
    axes.set_xticks((width + GAP) * np.arange(len(REACH)) + width / 2, [_number(value) for value in REACH])
    for row, dim in enumerate(dims):
        column = int(np.abs(REACH - mean[dim]).argmin())
        corner = column * (width + GAP) - GAP / 4, row * (height + GAP) - GAP / 4
        axes.add_patch(Rectangle(corner, width + GAP / 2, height + GAP / 2, fill=False, color=MARK, clip_on=False))
    return figure


def _number(value: float) -> str:
    return f"{value:.1f}".replace("-", "\N{MINUS SIGN}")


def _name_rows(axes: Axes, names: list[str], height: int) -> None:
    """Label rows of `height` pixels at the left."""
    axes.set_yticks((height + GAP) * np.arange(len(names)) + height / 2, names)


def _margin(names: list[str]) -> int:
    """Width of the left margin for these names, in pixels."""
    return 24 + 12 * max(map(len, names))
