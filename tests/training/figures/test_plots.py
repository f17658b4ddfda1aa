"""Pictures laid out to the pixel, the ranges of the plots, and the files that they become."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from training.figures.plots import (
    DPI,
    MAX_BYTES,
    PALETTE,
    PRIOR_RADIUS,
    colors,
    curves,
    frame,
    image_figure,
    legend,
    limits,
    mosaic,
    name_classes,
    save,
    scatter,
    spread,
    squares,
    tiles,
)

CELLS = np.arange(6, dtype=np.uint8)[:, None, None, None] * 40 + np.zeros((6, 3, 4, 3), np.uint8)


def rendered(figure: Figure) -> np.ndarray:
    """RGB levels `[H, W, 3]` of a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI)
    return np.asarray(Image.open(buffer).convert("RGB"))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("size", "side"), [(8, 56), (28, 56), (32, 64), (56, 56), (64, 64), (96, 48), (128, 64)])
def test_tiles_are_of_about_one_size_whatever_the_images_are(channels: int, size: int, side: int) -> None:
    assert tiles(noise(2, channels, size, size)).shape == (2, side, side, 3)


def test_small_images_are_enlarged_pixel_by_pixel() -> None:
    images = noise(2, 3, 28, 28)
    assert np.array_equal(tiles(images)[:, ::2, ::2], np.moveaxis(images, 1, 3))
    assert np.array_equal(tiles(images)[:, 1::2, 1::2], np.moveaxis(images, 1, 3))


def test_large_images_are_reduced_to_means() -> None:
    images = noise(1, 1, 112, 112)
    assert tiles(images)[0, 0, 0].tolist() == [round(images[0, 0, :2, :2].mean())] * 3


def test_a_mosaic_is_read_row_by_row_with_white_gaps() -> None:
    grid = mosaic(CELLS, columns=3, gap=2)
    assert (grid.dtype, grid.shape) == (np.uint8, (2 * 3 + 2, 3 * 4 + 2 * 2, 3))
    for index in range(6):
        row, column = divmod(index, 3)
        assert (grid[row * 5 : row * 5 + 3, column * 6 : column * 6 + 4] == 40 * index).all()
    assert (grid[3:5] == 255).all()
    assert (grid[:, 4:6] == 255).all()


def test_a_mosaic_without_gaps_and_one_that_ends_early() -> None:
    assert mosaic(CELLS, columns=2, gap=0)[::3, ::4, 0].tolist() == [[0, 40], [80, 120], [160, 200]]
    assert mosaic(CELLS, columns=4, gap=0)[::3, ::4, 0].tolist() == [[0, 40, 80, 120], [160, 200, 255, 255]]


@pytest.mark.parametrize("margins", [{}, {"left": 90}, {"left": 80, "bottom": 70, "top": 30, "right": 20}], ids=str)
def test_a_picture_shows_every_pixel(margins: dict[str, int]) -> None:
    pixels = noise(30, 40, 3)
    left, right, top, bottom = (margins.get(side, 0) for side in ("left", "right", "top", "bottom"))
    shown = rendered(image_figure(pixels, **margins)[0])
    assert shown.shape == (30 + top + bottom, 40 + left + right, 3)
    assert np.array_equal(shown[top : top + 30, left : left + 40], pixels)


def test_a_grey_figure_is_saved_in_grey_unchanged(tmp_path: Path) -> None:
    pixels = noise(50, 60, 1).repeat(3, axis=2)
    save(image_figure(pixels)[0], tmp_path / "x.png")
    image = Image.open(tmp_path / "x.png")
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image), pixels[..., 0])
    assert image.info["dpi"] == pytest.approx((DPI, DPI), abs=0.1)


def test_a_plot_is_saved_in_few_colors_that_look_like_the_palettes(tmp_path: Path) -> None:
    figure, (axes,) = squares(3.0)
    scatter(axes, np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32), noise(500) % 10)
    legend(figure, list("0123456789"))
    save(figure, tmp_path / "x.png")
    image = Image.open(tmp_path / "x.png")
    assert image.mode == "P"
    there = np.asarray(image.convert("RGB"))
    assert np.abs(there.astype(int) - rendered(figure)).max() < 40
    for color in colors(10):
        assert (np.abs(there - np.rint(255 * np.array(color))) < 12).all(axis=2).any()


def test_a_colour_picture_is_saved_as_it_is_unless_it_is_large(tmp_path: Path) -> None:
    small, large = noise(200, 300, 3), noise(1000, 1000, 3)
    save(image_figure(small)[0], tmp_path / "small.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "small.png").convert("RGB")), small)
    save(image_figure(large)[0], tmp_path / "large.png")
    assert (tmp_path / "large.png").stat().st_size < MAX_BYTES
    with Image.open(tmp_path / "large.png") as image:
        assert image.size == (500, 500)


def test_classes_have_colours_of_their_own_however_many_they_are() -> None:
    assert [len(set(colors(count))) for count in (1, 10, 11, 40)] == [1, 10, 11, 40]
    assert colors(3) == colors(10)[:3]


def test_curves_show_both_splits_and_let_early_outliers_go() -> None:
    epochs = [float(epoch) for epoch in range(1, 11)]
    train = [500.0, 300.0, *[100.0 - epoch for epoch in range(8)]]
    lines = {"train": train, "validation": [value + 1 for value in train]}
    axes = Figure().subplots()
    curves(axes, epochs, lines)
    assert {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()} == lines
    low, high = axes.get_ylim()
    assert low < 93
    assert 101 < high < 300


def test_a_single_epoch_is_a_dot_in_sight() -> None:
    axes = Figure().subplots()
    curves(axes, [1.0], {"train": [0.0], "test": [0.0]})
    low, high = axes.get_ylim()
    assert low < 0 < high
    assert {line.get_marker() for line in axes.get_lines()} == {"o"}


def test_limits_leave_a_margin() -> None:
    assert limits([np.array([1.0, 2.0]), np.array([3.0])]) == pytest.approx((0.8, 3.2))


def test_a_scatter_has_a_colour_a_class_and_the_priors_circle() -> None:
    axes = Figure().subplots()
    points = np.array([[0, 0], [1, 1], [2, 2]], np.float32)
    scatter(axes, points, np.array([0, 200, 0], np.uint8))
    facecolours = axes.collections[0].get_facecolors()
    assert np.array_equal(facecolours[0], facecolours[2])
    assert not np.array_equal(facecolours[0], facecolours[1])
    assert axes.patches[0].width == axes.patches[0].height == 2 * PRIOR_RADIUS
    assert len(set(PALETTE)) == 10


def test_points_and_circle_fill_a_square() -> None:
    axes = Figure().subplots()
    scatter(axes, np.array([[-1, 0], [9, 1]], np.float32), None)
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert left < -PRIOR_RADIUS
    assert right > 9
    assert low < -PRIOR_RADIUS
    assert right - left == pytest.approx(high - low)
    assert axes.get_aspect() == 1.0


def test_a_class_is_named_at_its_median() -> None:
    axes = Figure().subplots()
    points = np.array([[0, 0], [2, 4], [100, 5], [-7, -7]], np.float32)
    name_classes(axes, points, np.array([3, 3, 3, 8], np.uint8), ["tree", "house"])
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert places == {"tree": pytest.approx((2, 4)), "house": pytest.approx((-7, -7))}


def test_names_that_would_cover_one_another_are_pushed_apart() -> None:
    points = np.array([[0, 0], [0.1, 0], [0, 0.1], [5, 5]])
    moved = spread(points, 1.0)
    between = [np.hypot(*(a - b)) for i, a in enumerate(moved) for b in moved[:i]]
    assert min(between) > 0.98
    assert moved[3].tolist() == [5, 5]
    assert np.abs(moved - points).max() < 1


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
