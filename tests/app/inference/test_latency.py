"""A graph's latency, fitted to measurements."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.inference.latency import Latency
from app.maths.arrays import Arrays


def test_a_latency_is_fitted_and_inverted() -> None:
    latency = Latency.fit({1: 0.0119, 2: 0.0139, 8: 0.0259})
    assert latency.base == pytest.approx(0.0099)
    assert latency.per_row == pytest.approx(0.002)
    assert latency.seconds(5) == pytest.approx(0.0199)
    assert [latency.rows(seconds) for seconds in (0, 0.0121, 0.0201)] == [1, 1, 5]
    assert latency.efficient_rows == 45  # of which the base is a tenth
    assert latency.thread_rows == 12  # of which it is three tenths


@pytest.mark.parametrize("measured", [{1: 0.3, 2: 0.2, 8: 0.25}, {1: 1e-12, 8: 1e-12}, {1: 0.0, 8: 0.0}])
def test_a_disturbed_measurement_gives_a_latency_that_one_can_live_with(measured: dict[int, float]) -> None:
    latency = Latency.fit(measured)
    assert latency.per_row >= max(measured[8] / 32, 1e-9)
    assert latency.base > 0
    assert 1 <= latency.efficient_rows < 10**9


@given(st.floats(1e-6, 1e-1), st.floats(1e-6, 1e-1), st.floats(0, 10))
def test_rows_fit_into_the_time_they_are_given(base: float, per_row: float, seconds: float) -> None:
    latency = Latency(base, per_row)
    count = latency.rows(seconds)
    assert count == 1 or latency.seconds(count) <= seconds * (1 + 1e-9)
    assert latency.seconds(count + 2) > seconds
    assert base / latency.seconds(latency.efficient_rows) <= 0.1 + 1e-9


def test_latency_grows_with_the_rows_sizes() -> None:
    assert Latency(0.5, 0.25).scaled(4).seconds(2) == 2.5


def test_a_latency_is_measured_for_several_batch_sizes() -> None:
    seen: list[int] = []

    def run(rows: NDArray[Any]) -> Arrays:
        seen.append(len(rows))
        time.sleep(0.002)
        return {}

    latency = Latency.measured(run, np.zeros((1, 3)))
    assert seen == [1, 1, 1, 2, 2, 2, 8, 8, 8]
    assert latency.seconds(1) >= 0.0005
