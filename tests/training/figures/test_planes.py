"""The plane of the two highest dimensions, with and without classes, with and without an autoencoder beside."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.training.linear import Linear
from training.figures import choose
from training.figures.planes import draw_contrast, draw_encoding, draw_posterior
from training.figures.scene import Scene, load_scene


def load(folder: Path, linear: Linear) -> Scene:
    return load_scene(linear.write(folder), data_dir=folder, models=folder / "models")


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    ("labels", "expected"), [((4, 9), ["4", "9"]), (None, []), (tuple(range(30)), [])], ids=["two", "none", "too many"]
)
def test_the_legend_names_the_classes_there_are(
    tmp_path: Path, labels: tuple[int, ...] | None, expected: list[str]
) -> None:
    figure = draw_posterior(load(tmp_path, Linear(latent=2, labels=labels)))
    assert legend(figure) == [*expected, "95 % of N(0, I)"]
    assert [text.get_text() for text in figure.axes[0].texts] == expected


def test_classes_are_named_in_the_plane_only_where_it_is_the_whole_space(tmp_path: Path) -> None:
    figure = draw_posterior(load(tmp_path, Linear(latent=3)))
    assert list(figure.axes[0].texts) == []
    assert legend(figure)[:3] == ["0", "1", "2"]


def test_points_without_labels_have_one_colour(tmp_path: Path) -> None:
    scene = load(tmp_path, Linear(labels=None))
    (points,) = draw_posterior(scene).axes[0].collections
    assert len(np.unique(points.get_facecolors(), axis=0)) == 1
    np.testing.assert_allclose(points.get_offsets(), scene.posterior.mean[:, scene.dims])


def test_a_contrast_may_have_more_than_two_dimensions(tmp_path: Path) -> None:
    """It is shown in the same two as the bundle itself."""
    scene = load(tmp_path, Linear(latent=4))
    contrast = np.random.default_rng(0).normal(size=scene.posterior.mean.shape).astype(np.float32)
    scene = replace(scene, contrast=contrast)
    assert choose(scene)["contrast.png"] is draw_contrast
    for points in (draw_contrast(scene).axes[0], draw_encoding(scene).axes[1]):
        np.testing.assert_allclose(points.collections[0].get_offsets(), contrast[:, scene.dims])
