"""Figures of the plane of the two latent dimensions of highest KL."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from app.maths.gaussian import Floats
from training.figures.plots import (
    MARK,
    MAX_NAMED_CLASSES,
    close_up,
    ellipses,
    legend,
    name_axes,
    name_classes,
    plot_background,
    scatter,
    squares,
    tiles,
)
from training.figures.scene import Scene


def draw_posterior(scene: Scene) -> Figure:
    """Plot the posterior means of the test images by class."""
    figure, (axes,) = squares(4.4, right=1.4)
    show_classes(axes, scene.posterior.mean, scene)
    legend(figure, scene.class_names)
    return figure


def draw_contrast(scene: Scene) -> Figure:
    """Plot the posterior means beside a plain autoencoder's."""
    assert scene.contrast is not None
    figure, (left, right) = squares(3.9, 3.9, right=1.4)
    show_classes(left, scene.contrast, scene)
    show_classes(right, scene.posterior.mean, scene)
    left.set_title("Autoencoder")
    right.set_title("Variational autoencoder")
    legend(figure, scene.class_names)
    return figure


def show_classes(axes: Axes, means: Floats, scene: Scene) -> None:
    """Scatter means `[N, d]` in the scene's plane, with the classes' names if d is 2."""
    points, labels = means[:, scene.dims], scene.test.labels
    scatter(axes, points, labels)
    if labels is not None and means.shape[1] == 2 and len(scene.class_names) <= MAX_NAMED_CLASSES:
        name_classes(axes, points, labels, scene.class_names)
    name_axes(axes, scene.dims)


def draw_encoding(scene: Scene) -> Figure:
    """Plot one test image's encoding over the others: a point in the autoencoder, a distribution in this model."""
    assert scene.posterior.log_std is not None
    row, means = scene.specimen, scene.posterior.mean[:, scene.dims]
    mean, std = means[row], np.exp(scene.posterior.log_std[row, scene.dims])
    figure, axes = squares(1.4, *[3.4] * (1 if scene.contrast is None else 2))
    axes[0].imshow(tiles(scene.test.images[row : row + 1])[0])
    axes[0].set_axis_off()
    axes[0].set_title("Image")
    if scene.contrast is not None:
        plot_background(axes[1], scene.contrast[:, scene.dims])
        axes[1].plot(*scene.contrast[row, scene.dims], "o", color=MARK, markersize=5)
        axes[1].set_title("Autoencoder: a point")
    plot_background(axes[-1], means)
    ellipses(axes[-1], mean, std)
    close_up(axes[-1], mean, std)
    axes[-1].set_title("Variational autoencoder: a distribution")
    for plane in axes[1:]:
        name_axes(plane, scene.dims)
    return figure
