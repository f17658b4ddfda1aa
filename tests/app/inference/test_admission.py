"""Which rows are admitted, with numbers alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput, Overloaded
from app.inference.admission import MAX_SLOWDOWN, Admission, RowWeight

ONE = RowWeight(cost=1, max_batch_rows=1, seconds=1.0)
"""Rows that run alone, for a second each."""


def is_refused(admission: Admission, key: str, rows: int = 1, weight: RowWeight = ONE) -> bool:
    try:
        admission.check(key, weight, rows)
    except Overloaded:
        return True
    return False


def test_rows_are_admitted_up_to_the_limit_and_again_when_others_left() -> None:
    admission = Admission(slots=1, max_rows=3)
    admission.admit("a", ONE, 2)
    assert is_refused(admission, "b", 2)
    admission.admit("b", ONE, 1)
    assert is_refused(admission, "a")
    admission.leave("a", ONE, 2)
    assert not is_refused(admission, "b", 2)
    assert admission.refused_rows == 3


def test_a_row_counts_by_its_cost() -> None:
    admission, large = Admission(slots=1, max_rows=8), RowWeight(cost=3, max_batch_rows=1, seconds=0)
    admission.admit("large", large, 2)
    assert is_refused(admission, "large", 1, large)
    assert not is_refused(admission, "small", 2)
    with pytest.raises(InvalidInput, match=r"9 rows .* 8"):
        admission.check("large", large, 3)
    assert admission.refused_rows == 1  # what never fits is the caller's mistake, and no overload


def test_the_predicted_wait_is_that_of_the_rows_before_in_all_slots() -> None:
    one, two = Admission(slots=1, max_rows=100), Admission(slots=2, max_rows=100)
    for admission in (one, two):
        admission.admit("a", ONE, 6)
    assert (one.predicted_wait("a"), two.predicted_wait("a"), one.predicted_wait("b")) == (6.0, 3.0, 0.0)


def test_the_predicted_wait_counts_the_turns_of_other_keys() -> None:
    admission = Admission(slots=1, max_rows=1000, max_wait_seconds=3)
    light = RowWeight(cost=1, max_batch_rows=10, seconds=0.001)
    heavy = RowWeight(cost=1, max_batch_rows=1, seconds=2.0)
    waiting = admission.reserve("light", light, 50)
    admission.reserve("heavy", heavy, 10)
    assert is_refused(admission, "light")  # five batches, behind each of which one of the heavy key takes two seconds
    assert is_refused(admission, "heavy")
    assert not is_refused(admission, "idle")  # its turn comes after one batch of each
    admission.release(waiting, 41)
    assert not is_refused(admission, "light")


def test_the_predicted_wait_follows_the_slowdown_which_is_bounded() -> None:
    admission = Admission(slots=1, max_rows=100)
    admission.admit("a", ONE, 1)
    for _ in range(200):
        admission.observe(1000.0)
    assert admission.predicted_wait("a") == pytest.approx(MAX_SLOWDOWN)
    for _ in range(200):
        admission.observe(0.5)
    assert admission.predicted_wait("a") == pytest.approx(0.5)


def test_a_reservation_admits_its_rows_and_is_used_up_by_its_own_key() -> None:
    admission = Admission(slots=1, max_rows=4)
    reservation = admission.reserve("a", ONE, 3)
    assert is_refused(admission, "b", 2)
    admission.admit("b", ONE, 2, reservation)  # run before; the room for `a` is kept
    assert reservation.rows == 3
    admission.admit("a", ONE, 3, reservation)
    admission.admit("a", ONE, 1, reservation)  # more than reserved, but the request was let in
    assert reservation.rows == 0
    for key, rows in (("b", 2), ("a", 4)):
        admission.leave(key, ONE, rows)
    assert not is_refused(admission, "a", 4)


def test_nothing_is_admitted_once_closed_whatever_is_reserved() -> None:
    admission = Admission(slots=1, max_rows=4)
    reservation = admission.reserve("a", ONE, 1)
    admission.is_closed = True
    with pytest.raises(Overloaded, match="stopping"):
        admission.admit("a", ONE, 1, reservation)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=30))
def test_what_was_admitted_and_left_leaves_nothing_behind(rows: list[tuple[str, int]]) -> None:
    admission, weight = Admission(slots=1, max_rows=1000), RowWeight(cost=2, max_batch_rows=3, seconds=0.1)
    for key, count in rows:
        admission.admit(key, weight, count)
    for key, count in reversed(rows):
        admission.leave(key, weight, count)
    assert not is_refused(admission, "a", 500, weight)
    assert admission.predicted_wait("a") == 0


def test_a_key_with_fewer_batches_delays_the_others_by_those_alone() -> None:
    admission, tens = Admission(slots=1, max_rows=1000), RowWeight(cost=1, max_batch_rows=10, seconds=0.1)
    admission.admit("many", tens, 100)
    admission.admit("few", tens, 10)
    assert admission.predicted_wait("many") == pytest.approx(10 + 1)
    assert admission.predicted_wait("few") == pytest.approx(1 + 1)
