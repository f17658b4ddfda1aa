"""Graphs and their sources: rounding is accepted, and every larger difference is an error that names the tensor."""

from typing import Any

import numpy as np
import pytest

from training.bundling.parity import BATCH_SIZES, FLOAT32, Tolerance, check_graph, compare
from training.errors import ParityError

VALUES = np.array([[0.0, -3.0], [10.0, 0.5]], np.float32)


def level(value: int) -> Any:
    return np.full((3, 1, 2, 2), value, np.uint8)


def test_batches_of_one_row_and_more_are_compared() -> None:
    assert BATCH_SIZES == (1, 2, 7, 64)
    assert FLOAT32 == (1e-4, 1)


@pytest.mark.parametrize("given", [99, 100, 101])
def test_a_difference_of_one_gray_level_is_accepted(given: int) -> None:
    compare("image", level(given), level(100))


@pytest.mark.parametrize("given", [98, 102])
def test_a_difference_of_two_gray_levels_is_an_error(given: int) -> None:
    with pytest.raises(ParityError, match="`image` in a batch of 3 differs from its source's by up to 2:"):
        compare("image", level(given), level(100))
    compare("image", level(given), level(100), Tolerance(0, 2))


def test_levels_below_zero_do_not_wrap_around() -> None:
    with pytest.raises(ParityError, match="by up to 255"):
        compare("image", level(255), level(0))


def test_floats_are_compared_absolutely_and_relatively() -> None:
    compare("mean", VALUES + 9e-5 * (1 + np.abs(VALUES)), VALUES)
    for row in range(2):
        wrong = VALUES.copy()
        wrong[row, 0] += 1.2e-4 * (1 + abs(wrong[row, 0]))
        with pytest.raises(ParityError, match="`mean` in a batch of 2"):
            compare("mean", wrong, VALUES)
        compare("mean", wrong, VALUES, Tolerance(1e-3, 1))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_an_error(value: float) -> None:
    wrong = VALUES.copy()
    wrong[1, 1] = value
    with pytest.raises(ParityError, match="graph's `mean` in a batch of 2 differs"):
        compare("mean", wrong, VALUES)
    for output in (wrong, VALUES):
        with pytest.raises(ParityError, match="source's `mean` has values that are not finite"):
            compare("mean", output, wrong)


@pytest.mark.parametrize(
    "other", [VALUES[:1], VALUES.astype(np.float64), VALUES[..., None]], ids=["rows", "type", "rank"]
)
def test_another_shape_or_type_is_an_error(other: Any) -> None:
    with pytest.raises(ParityError, match=r"`mean` is float\d\d \[.*\], and its source's float32 \[2, 2\]"):
        compare("mean", other, VALUES)


def test_a_graph_runs_on_the_first_rows_of_every_batch_size() -> None:
    rows, seen = np.arange(20.0).reshape(10, 2), []

    def run(batch: Any) -> dict[str, Any]:
        seen.append(len(batch))
        return {"twice": 2 * batch, "unasked": batch}

    check_graph(run, rows, {"twice": 2 * rows}, sizes=(1, 3, 7))
    assert seen == [1, 3, 7]
    with pytest.raises(ParityError, match="`twice` in a batch of 1"):
        check_graph(run, rows, {"twice": 3 * rows + 1})


def test_an_output_that_depends_on_the_batch_is_an_error() -> None:
    rows = np.arange(20.0).reshape(10, 2)
    with pytest.raises(ParityError, match="`sum` in a batch of 1"):
        check_graph(lambda batch: {"sum": batch + batch.sum()}, rows, {"sum": rows + rows.sum()})
