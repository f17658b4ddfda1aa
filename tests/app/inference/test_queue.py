"""The queue of rows: turns, fair shares and dropped jobs, without threads and without an event loop."""

import asyncio
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.inference.queue import Job, LaneSpec, QueuedLane, RowQueue

Taken = list[tuple[int, int, int]]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def lane(key: object) -> LaneSpec:
    return LaneSpec(key, lambda _: {}, None, cost=1, max_batch_rows=32, row_seconds=0)  # type: ignore[arg-type]


def job(
    loop: asyncio.AbstractEventLoop,
    number: int,
    rows: int,
    *,
    width: int = 1,
    deadline: float | None = None,
    caller: str = "",
) -> Job:
    """A job all of whose values are its number."""
    return Job(np.full((rows, width), number, np.float32), loop.create_future(), deadline, 0.0, caller)


def take(queue: RowQueue, queued: QueuedLane, rows: int, now: float = 0.0) -> Taken:
    """The pieces of a batch, as number of the job, start and stop."""
    return [(int(piece.rows[0, 0]), piece.start, piece.stop) for piece in queue.take(queued, rows, now)[0]]


def test_jobs_of_one_key_and_shape_share_a_batch(loop: asyncio.AbstractEventLoop) -> None:
    queue, spec = RowQueue(), lane("k")
    lanes = {id(queue.add(spec, job(loop, number, 2))) for number in range(3)}
    assert len(lanes) == 1
    [queued] = queue.turns()
    assert take(queue, queued, 8) == [(0, 0, 2), (1, 0, 2), (2, 0, 2)]
    assert not queue
    assert queue.rows == 0


def test_a_batch_is_shared_max_min_fairly(loop: asyncio.AbstractEventLoop) -> None:
    queue, spec = RowQueue(), lane("k")
    for number, rows in enumerate((20, 1, 20)):
        queued = queue.add(spec, job(loop, number, rows))
    assert sorted(take(queue, queued, 9)) == [(0, 0, 4), (1, 0, 1), (2, 0, 4)]
    assert (queue.rows, queued.waiting_rows) == (32, 32)
    assert sorted(take(queue, queued, 9)) == [(0, 4, 8), (2, 4, 9)]


def test_keys_take_turns_and_within_them_shapes(loop: asyncio.AbstractEventLoop) -> None:
    queue, sizes, other = RowQueue(), lane("sizes"), lane("other")
    for number, width in ((1, 1), (2, 2), (3, 3)):
        queue.add(sizes, job(loop, number, 2, width=width))
    queue.add(other, job(loop, 9, 3))
    order = []
    while queue:
        order.append(take(queue, queue.turns()[0], 1)[0][0])
    assert order == [1, 9, 2, 9, 3, 9, 1, 2, 3]


def test_jobs_that_nobody_waits_for_are_dropped(loop: asyncio.AbstractEventLoop) -> None:
    queue, spec = RowQueue(), lane("k")
    gone, late, wanted = job(loop, 1, 2), job(loop, 2, 3, deadline=5.0), job(loop, 3, 1, deadline=7.0)
    for each in (gone, late, wanted):
        queued = queue.add(spec, each)
    gone.future.cancel()
    pieces, dropped = queue.take(queued, 1, now=6.0)
    assert [piece.job for piece in pieces] == [wanted]
    assert dropped == [(gone, 2), (late, 3)]
    assert gone.waiting_rows == late.waiting_rows == queued.waiting_rows == 0
    assert not queue


def test_a_removed_job_leaves_the_others_and_the_last_one_its_lane(loop: asyncio.AbstractEventLoop) -> None:
    queue, spec = RowQueue(), lane("k")
    first, second = job(loop, 1, 4), job(loop, 2, 1)
    for each in (first, second):
        queued = queue.add(spec, each)
    assert sorted(take(queue, queued, 2)) == [(1, 0, 1), (2, 0, 1)]
    assert queue.remove(queued, first) == 3
    assert not queue
    assert first.waiting_rows == 0


def test_rows_are_counted_by_the_owner_of_their_key(loop: asyncio.AbstractEventLoop) -> None:
    queue, one, other = RowQueue(), object(), object()
    for key, rows in (((one, "a"), 1), ((one, "b"), 2), ((other, "a"), 4), ("loose", 8)):
        queue.add(lane(key), job(loop, 0, rows))
    assert (queue.rows_of(one), queue.rows_of(other), queue.rows) == (3, 4, 15)


@given(
    jobs=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 30)), min_size=1, max_size=12),
    room=st.integers(1, 16),
)
def test_every_row_is_taken_once_and_in_order(
    loop: asyncio.AbstractEventLoop, jobs: list[tuple[str, int]], room: int
) -> None:
    queue, spec, sizes, seen = RowQueue(), lane("k"), [rows for _, rows in jobs], [0] * len(jobs)
    for number, (caller, rows) in enumerate(jobs):
        queue.add(spec, job(loop, number, rows, caller=caller))
    while queue:
        taken, wanting = take(queue, queue.turns()[0], room), Counter[str]()
        counts = Counter[str]()
        for number, start, stop in taken:
            caller = jobs[number][0]
            counts[caller] += stop - start
            wanting[caller] += stop < sizes[number]
        assert 0 < counts.total() <= room
        unmet = [counts[caller] for caller, jobs_left in wanting.items() if jobs_left]
        assert not unmet or min(unmet) >= max(counts.values()) - 1  # nobody who wants more gets less than another
        for number, start, stop in taken:
            assert start == seen[number]
            seen[number] = stop
    assert seen == sizes


def test_what_is_left_of_jobs_stays_ahead_of_later_jobs(loop: asyncio.AbstractEventLoop) -> None:
    queue, spec = RowQueue(), lane("k")
    for number in range(3):
        queued = queue.add(spec, job(loop, number, 10))
    assert take(queue, queued, 2) == [(0, 0, 1), (1, 0, 1)]
    assert [int(left.rows[0, 0]) for left in queued.jobs[""]] == [0, 1, 2]


def test_callers_share_each_batch_however_many_jobs_they_have(loop: asyncio.AbstractEventLoop) -> None:
    queue, spec = RowQueue(), lane("k")
    for number in range(40):
        queue.add(spec, job(loop, number, 10, caller="many"))
    queued = queue.add(spec, job(loop, 100, 10, caller="one"))
    assert sum(stop - start for number, start, stop in take(queue, queued, 8) if number == 100) == 4
    queue.add(spec, job(loop, 200, 1, caller="late"))
    taken = take(queue, queued, 7)
    assert sum(stop - start for number, start, stop in taken if number == 100) == 3
    assert (200, 0, 1) in taken


def test_the_oldest_jobs_of_a_caller_come_first_while_others_arrive(loop: asyncio.AbstractEventLoop) -> None:
    queue, spec, taken = RowQueue(), lane("k"), list[int]()
    queued = queue.add(spec, job(loop, 1000, 10_000, caller="bulk"))
    for number in range(100):
        queue.add(spec, job(loop, number, 1, caller="many"))
        queue.add(spec, job(loop, 100 + number, 1, caller="many"))
    for _ in range(20):
        taken += [number for number, _, _ in take(queue, queued, 8) if number < 1000]
    assert taken == [number for pair in zip(range(100), range(100, 200), strict=True) for number in pair][: len(taken)]
    assert len(taken) == 80


def test_callers_take_turns_where_a_batch_is_for_few_of_them(loop: asyncio.AbstractEventLoop) -> None:
    queue, spec = RowQueue(), lane("k")
    for number, caller in enumerate("aaaabcd"):
        queued = queue.add(spec, job(loop, number, 1, caller=caller))
    assert [take(queue, queued, 2) for _ in range(3)] == [
        [(0, 0, 1), (4, 0, 1)],
        [(5, 0, 1), (6, 0, 1)],
        [(1, 0, 1), (2, 0, 1)],
    ]
