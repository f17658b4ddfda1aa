"""Which rows are admitted, with numbers alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidInput, Overloaded
from app.inference.admission import MAX_SLOWDOWN, Admission
from app.inference.queue import LaneSpec


def lane(key: str, cost: int = 1, max_batch_rows: int = 1, seconds: float = 1.0) -> LaneSpec:
    """Rows that run alone, for a second each, unless stated otherwise."""
    return LaneSpec(key, lambda _: {}, None, cost, max_batch_rows, seconds)


A, B = lane("a"), lane("b")


def is_refused(admission: Admission, lane: LaneSpec, rows: int = 1, caller: str = "") -> bool:
    try:
        admission.check(lane, rows, caller)
    except Overloaded:
        return True
    return False


def test_rows_are_admitted_up_to_the_limit_and_again_when_others_left() -> None:
    admission = Admission(slots=1, max_rows=3)
    admission.admit(A, 2)
    assert is_refused(admission, B, 2)
    admission.admit(B, 1)
    assert is_refused(admission, A)
    admission.leave(A, 2)
    assert not is_refused(admission, B, 2)
    assert admission.refused_rows == 3


def test_a_row_counts_by_its_cost() -> None:
    admission, large = Admission(slots=1, max_rows=8), lane("large", cost=3, seconds=0)
    admission.admit(large, 2)
    assert is_refused(admission, large)
    assert not is_refused(admission, lane("small"), 2)
    with pytest.raises(InvalidInput, match=r"9 rows .* 8"):
        admission.check(large, 3)
    assert admission.refused_rows == 1  # what never fits is the caller's mistake, and no overload


def test_a_full_queue_has_room_for_an_equal_share_of_another_model_and_the_whole_is_bounded() -> None:
    admission = Admission(slots=1, max_rows=12)
    model, other, third = object(), object(), object()
    lanes = [LaneSpec((owner, name), lambda _: {}, None, 1, 1, 0.0) for owner in (model, other) for name in "ed"]
    admission.admit(lanes[0], 6)
    admission.admit(lanes[1], 6)
    assert is_refused(admission, lanes[0])
    assert is_refused(admission, lanes[2], 7)
    admission.admit(lanes[2], 3)
    admission.admit(lanes[3], 3)
    assert is_refused(admission, lanes[3])
    assert is_refused(admission, lanes[1])
    last = LaneSpec((third, "e"), lambda _: {}, None, 1, 1, 0.0)
    assert is_refused(admission, last, 5)
    admission.admit(last, 4)
    admission.admit(LaneSpec((object(), "e"), lambda _: {}, None, 1, 1, 0.0), 2)
    assert is_refused(admission, LaneSpec((object(), "e"), lambda _: {}, None, 1, 1, 0.0), 1)  # 24 rows wait


def test_the_predicted_wait_is_that_of_the_rows_before_in_all_slots() -> None:
    one, two = Admission(slots=1, max_rows=100), Admission(slots=2, max_rows=100)
    for admission in (one, two):
        admission.admit(A, 6)
    assert (one.predicted_wait("a"), two.predicted_wait("a"), one.predicted_wait("b")) == (6.0, 3.0, 0.0)


def test_the_predicted_wait_counts_the_turns_of_other_keys() -> None:
    admission = Admission(slots=1, max_rows=1000, max_wait_seconds=3)
    light = lane("light", max_batch_rows=10, seconds=0.001)
    heavy = lane("heavy", seconds=2.0)
    with admission.reserve(light, 9):
        with admission.reserve(light, 41), admission.reserve(heavy, 10):
            assert is_refused(admission, light)  # five batches, behind each of which a heavy one takes two seconds
            assert is_refused(admission, heavy)
            assert not is_refused(admission, lane("idle"))  # its turn comes after one batch of each
        admission.admit(heavy, 10)
        assert not is_refused(admission, light)


def test_the_predicted_wait_follows_the_slowdown_which_is_bounded() -> None:
    admission = Admission(slots=1, max_rows=100)
    admission.admit(A, 1)
    for _ in range(200):
        admission.observe(1000.0)
    assert admission.predicted_wait("a") == pytest.approx(MAX_SLOWDOWN)
    for _ in range(200):
        admission.observe(0.5)
    assert admission.predicted_wait("a") == pytest.approx(0.5)


def test_a_reservation_admits_its_rows_and_is_used_up_by_its_own_key() -> None:
    admission = Admission(slots=1, max_rows=4)
    with admission.reserve(A, 3) as reservation:
        assert is_refused(admission, B, 3)
        admission.admit(B, 2, reservation=reservation)  # run before; the room for `a` is kept
        assert reservation.rows == 3
        admission.admit(A, 3, reservation=reservation)
        admission.admit(A, 1, reservation=reservation)  # more than reserved, but the request was let in
        assert reservation.rows == 0
        for left, rows in ((B, 2), (A, 4)):
            admission.leave(left, rows)
        assert not is_refused(admission, A, 4)


def test_the_rest_of_a_reservation_is_released() -> None:
    admission = Admission(slots=1, max_rows=4)
    with admission.reserve(A, 4) as reservation:
        admission.admit(A, 1, reservation=reservation)
        assert is_refused(admission, B, 3)
    assert not is_refused(admission, B, 3)
    assert is_refused(admission, B, 4)


def test_nothing_is_admitted_once_closed_whatever_is_reserved() -> None:
    admission = Admission(slots=1, max_rows=4)
    with admission.reserve(A, 1) as reservation:
        admission.is_closed = True
        with pytest.raises(Overloaded, match="stopping"):
            admission.admit(A, 1, reservation=reservation)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9)), max_size=30))
def test_what_was_admitted_and_left_leaves_nothing_behind(rows: list[tuple[str, int]]) -> None:
    admission = Admission(slots=1, max_rows=1000)
    lanes = {key: lane(key, cost=2, max_batch_rows=3, seconds=0.1) for key in "abc"}
    for key, count in rows:
        admission.admit(lanes[key], count)
    for key, count in reversed(rows):
        admission.leave(lanes[key], count)
    assert not is_refused(admission, lanes["a"], 500)
    assert admission.predicted_wait("a") == 0


def test_a_key_with_fewer_batches_delays_the_others_by_those_alone() -> None:
    admission = Admission(slots=1, max_rows=1000)
    many, few = (lane(key, max_batch_rows=10, seconds=0.1) for key in ("many", "few"))
    admission.admit(many, 100)
    admission.admit(few, 10)
    assert admission.predicted_wait("many") == pytest.approx(10 + 1)
    assert admission.predicted_wait("few") == pytest.approx(1 + 1)


def test_a_caller_with_less_than_an_equal_share_finds_room_in_a_full_queue() -> None:
    admission = Admission(slots=1, max_rows=12)
    admission.admit(A, 12, "heavy")
    assert is_refused(admission, A, 1, "heavy")
    assert is_refused(admission, A, 7, "light")
    admission.admit(A, 6, "light")
    assert is_refused(admission, A, 1, "light")
    assert is_refused(admission, A, 5, "third")
    admission.admit(A, 4, "third")
    admission.leave(A, 6, "light")
    admission.leave(A, 4, "third")
    for number in range(11):
        admission.admit(A, 1, f"one of many {number}")
    assert is_refused(admission, A, 1, "one more")  # an equal share is less than a row


def test_who_waits_for_little_waits_for_as_much_of_every_other_caller() -> None:
    admission, wide = Admission(slots=1, max_rows=1000), lane("a", max_batch_rows=10)
    admission.admit(wide, 100, "heavy")
    assert admission.predicted_wait("a", "heavy", 1) == 100
    assert admission.predicted_wait("a", "light", 1) == pytest.approx(2)
    admission.admit(wide, 5, "light")
    assert admission.predicted_wait("a", "light", 5) == pytest.approx(20)
    assert admission.predicted_wait("a", "third", 1) == pytest.approx(3)
    admission.leave(wide, 100, "heavy")
    assert admission.predicted_wait("a", "light", 1) == 5
