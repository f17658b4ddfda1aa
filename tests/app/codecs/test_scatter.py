"""The scatter as a picture: points where they belong, round, with ticks."""

import numpy as np
import pytest

from app.codecs.scatter import COLORS, SIZE, Frame, scatter


def test_points_lie_where_the_frame_puts_them() -> None:
    points = np.array([[0, 0], [1, 3], [-2, 1]], np.float32)
    picture = scatter(points, None, ("z0", "z1"))
    assert picture.shape == (SIZE, SIZE, 3)
    for row, column in np.round(Frame.around(points).place(points)).astype(int):
        assert np.abs(picture[row, column] - COLORS[0]).max() < 70


def test_the_second_coordinate_is_largest_at_the_top_and_both_have_one_scale() -> None:
    frame = Frame(np.array([1.0, 2.0]), 4.0)
    center, up, right = frame.place(np.array([[1, 2], [1, 4], [3, 2]], np.float32))
    assert up[0] < center[0]
    assert right[1] > center[1]
    assert center[0] - up[0] == pytest.approx(right[1] - center[1])


@pytest.mark.parametrize("extent", [1e-3, 0.3, 1.0, 2.5, 7.0, 900.0])
def test_ticks_are_round_and_few(extent: float) -> None:
    ticks = Frame(np.array([0.1, 0.2]) * extent, extent).ticks(0)
    assert 3 <= len(ticks) <= 7
    step = ticks[1] - ticks[0]
    assert {f"{step:.0e}"[0]} <= {"1", "2", "5"}


@pytest.mark.parametrize("points", [np.zeros((1, 2)), np.full((4, 2), 1e6), np.array([[0.0, 0], [1e6, 0]])])
def test_points_in_one_place_and_far_away_are_drawn(points: np.ndarray) -> None:
    picture = scatter(points.astype(np.float32), np.arange(len(points)), ("z0", "z1"))
    assert (picture[60:-60, 60:-60].min(axis=2) < 128).any()


def test_more_classes_than_colours_are_drawn() -> None:
    points = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    assert scatter(points, np.arange(60), ("z0", "z1")).shape == (SIZE, SIZE, 3)
