"""Pictures laid out to the pixel, and the ranges of the plots."""

import io
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from training.plots import DPI, PALETTE, PRIOR_RADIUS, curves, frame, mosaic, name_classes, picture, scatter, squares

TILES = np.arange(6, dtype=np.uint8)[:, None, None, None] * 40 + np.zeros((6, 1, 3, 4), np.uint8)


def rendered(figure: Figure) -> np.ndarray:
    """Grey levels `[H, W]` of a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI)
    return np.asarray(Image.open(buffer).convert("L"))


def test_a_mosaic_is_read_row_by_row_with_white_gaps() -> None:
    grid = mosaic(TILES, columns=3, gap=2)
    assert (grid.dtype, grid.shape) == (np.uint8, (2 * 3 + 2, 3 * 4 + 2 * 2))
    for index in range(6):
        row, column = divmod(index, 3)
        assert (grid[row * 5 : row * 5 + 3, column * 6 : column * 6 + 4] == 40 * index).all()
    assert (grid[3:5] == 255).all()
    assert (grid[:, 4:6] == 255).all()


def test_a_mosaic_without_gaps() -> None:
    grid = mosaic(TILES, columns=2, gap=0)
    assert grid.shape == (9, 8)
    assert grid[::3, ::4].tolist() == [[0, 40], [80, 120], [160, 200]]


@pytest.mark.parametrize("margins", [{}, {"left": 90}, {"left": 80, "bottom": 70}], ids=str)
def test_a_picture_shows_every_pixel_twice_as_large(margins: dict[str, int]) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (30, 40)).astype(np.uint8)
    left, bottom = margins.get("left", 0), margins.get("bottom", 0)
    pixels = rendered(picture(tiles, **margins)[0])
    assert pixels.shape == (2 * 30 + bottom, 2 * 40 + left)
    shown = pixels[: 2 * 30, left:].astype(int)
    assert np.abs(shown - np.kron(tiles, np.ones((2, 2), np.uint8))).max() <= 1  # matplotlib rounds down


def test_curves_show_both_splits_and_let_early_outliers_go() -> None:
    epochs = list(range(1, 11))
    train = [500.0, 300.0, *[100.0 - epoch for epoch in range(8)]]
    test = [value + 1 for value in train]
    axes = Figure().subplots()
    curves(axes, {"epoch": [float(e) for e in epochs], "train/kl": train, "test/kl": test}, "kl")
    assert [line.get_label() for line in axes.get_lines()] == ["train", "test"]
    assert [list(line.get_ydata()) for line in axes.get_lines()] == [train, test]
    low, high = axes.get_ylim()
    assert low < 93
    assert 101 < high < 300


def test_a_single_epoch_is_a_dot_in_sight() -> None:
    axes = Figure().subplots()
    curves(axes, {"epoch": [1.0], "train/kl": [0.0], "test/kl": [0.0]}, "kl")
    low, high = axes.get_ylim()
    assert low < 0 < high
    assert {line.get_marker() for line in axes.get_lines()} == {"o"}


def test_a_scatter_has_a_colour_a_class_and_the_priors_circle() -> None:
    axes = Figure().subplots()
    points = np.array([[0, 0], [1, 1], [2, 2]], np.float32)
    scatter(axes, points, np.array([0, 9, 0], np.uint8))
    colours = axes.collections[0].get_facecolors()
    assert np.array_equal(colours[0], colours[2])
    assert not np.array_equal(colours[0], colours[1])
    assert axes.patches[0].width == axes.patches[0].height == 2 * PRIOR_RADIUS
    assert len(set(PALETTE)) == 10


def test_points_and_circle_fill_a_square() -> None:
    axes = Figure().subplots()
    scatter(axes, np.array([[-1, 0], [9, 1]], np.float32), np.array([0, 1], np.uint8))
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert left < -PRIOR_RADIUS
    assert right > 9
    assert low < -PRIOR_RADIUS
    assert right - left == pytest.approx(high - low)
    assert axes.get_aspect() == 1.0


def test_a_class_is_named_at_its_median() -> None:
    axes = Figure().subplots()
    points = np.array([[0, 0], [2, 4], [100, 5], [-7, -7]], np.float32)
    name_classes(axes, points, np.array([3, 3, 3, 8], np.uint8))
    assert {text.get_text(): text.get_position() for text in axes.texts} == {"3": (2.0, 4.0), "8": (-7.0, -7.0)}


def test_a_row_of_squares_is_square_and_does_not_overlap() -> None:
    figure, axes = squares(1.4, 3.4, 3.4, right=1.0)
    boxes = [plane.get_window_extent() for plane in axes]
    for box, side in zip(boxes, (1.4, 3.4, 3.4), strict=True):
        assert box.width == pytest.approx(box.height) == pytest.approx(side * figure.dpi)
    for before, after in pairwise(boxes):
        assert before.x1 < after.x0
    assert figure.bbox.width - boxes[-1].x1 == pytest.approx(figure.dpi)


def test_a_frame_has_one_scale() -> None:
    axes = Figure().subplots()
    frame(axes, np.array([[0, 0], [10, 1]], np.float32))
    assert np.diff(axes.get_xlim())[0] == pytest.approx(np.diff(axes.get_ylim())[0]) == pytest.approx(10.6)


def test_the_circle_holds_95_per_cent_of_the_prior() -> None:
    draws = np.random.default_rng(0).normal(size=(200_000, 2))
    assert (np.linalg.norm(draws, axis=1) < PRIOR_RADIUS).mean() == pytest.approx(0.95, abs=0.002)
