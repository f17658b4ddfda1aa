"""The batcher: what it promises under arrivals, failures, cancellation and shutdown."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.errors import DeadlineExceeded, InvalidInput, Overloaded
from app.inference.admission import Reservation
from app.inference.batcher import Batcher, Work
from app.inference.latency import Latency, RunRows
from app.maths.arrays import Arrays
from app.observability.timing import GraphStatistics, Timing
from tests.processes import PATIENCE

Rows = NDArray[np.float32]


@pytest.fixture(scope="module", autouse=True)
def _no_lag() -> Iterator[None]:
    """A slot has one batch, however late a busy machine makes the event loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.inference.batcher.MAX_EVENT_LOOP_LAG", math.inf)
        yield


def rows(*values: float) -> Rows:
    return np.array(values, np.float32)


def double(batch: NDArray[Any]) -> Arrays:
    return {"double": 2 * batch}


class Gate:
    """A run that records its batches and waits until it is opened."""

    def __init__(self, fail: Callable[[Rows], bool] = lambda _: False) -> None:
        self.batches: list[list[float]] = []
        self.open = threading.Event()
        self.fail = fail

    def __call__(self, batch: NDArray[Any]) -> Arrays:
        self.batches.append(batch.tolist())
        assert self.open.wait(PATIENCE)
        if self.fail(batch):
            raise RuntimeError("model raised")
        return double(batch)


async def submit(
    batcher: Batcher,
    key: Hashable,
    run: RunRows,
    batch: NDArray[Any],
    *,
    timing: Timing | None = None,
    reservation: Reservation | None = None,
    deadline: float | None = None,
    **lane: Any,
) -> Arrays:
    """Submit rows of a lane that is described for them alone."""
    work = Work(timing or Timing(), reservation)
    return await batcher.submit(batcher.lane(key, run, **lane), batch, work, deadline=deadline)


def check(batcher: Batcher, key: Hashable, count: int, cost: int = 1) -> None:
    batcher.admission.check(batcher.lane(key, double, cost=cost), count)


def hold(
    batcher: Batcher, key: Hashable, count: int, latency: Latency | None = None, cost: int = 1
) -> AbstractContextManager[Reservation]:
    return batcher.admission.reserve(batcher.lane(key, double, latency=latency, cost=cost), count)


async def started(gate: Gate, count: int = 1) -> None:
    """Wait until the gate has seen `count` batches."""
    while len(gate.batches) < count:  # noqa: ASYNC110 (the gate lives in a thread)
        await asyncio.sleep(0.001)


def test_a_lone_request_is_answered() -> None:
    async def main() -> None:
        batcher = Batcher()
        answer = await submit(batcher, "k", double, rows(1, 2, 3))
        assert answer["double"].tolist() == [2, 4, 6]
        await batcher.close()

    asyncio.run(main())


def test_a_backlog_becomes_one_batch() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=8), Gate()
        first = asyncio.create_task(submit(batcher, "k", gate, rows(0)))
        await started(gate)
        tasks = [asyncio.create_task(submit(batcher, "k", gate, rows(i))) for i in range(1, 5)]
        await asyncio.sleep(0)
        gate.open.set()
        answers = await asyncio.gather(first, *tasks)
        assert [answer["double"].tolist() for answer in answers] == [[0], [2], [4], [6], [8]]
        assert gate.batches == [[0], [1, 2, 3, 4]]
        await batcher.close()

    asyncio.run(main())


def test_keys_do_not_mix() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1), Gate()
        tasks = [asyncio.create_task(submit(batcher, key, gate, rows(i))) for i, key in enumerate("abab")]
        await started(gate)
        gate.open.set()
        await asyncio.gather(*tasks)
        assert gate.batches == [[0, 2], [1, 3]]
        await batcher.close()

    asyncio.run(main())


def test_a_large_request_is_split_and_takes_turns() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=4), Gate()
        large = asyncio.create_task(submit(batcher, "k", gate, rows(*range(12))))
        await started(gate)
        small = asyncio.create_task(submit(batcher, "k", gate, rows(100)))
        await asyncio.sleep(0)
        gate.open.set()
        assert (await small)["double"].tolist() == [200]
        assert not large.done()
        assert (await large)["double"].tolist() == [2 * i for i in range(12)]
        assert 100 in gate.batches[1]
        assert max(map(len, gate.batches)) <= 4
        await batcher.close()

    asyncio.run(main())


def test_lanes_take_turns_in_one_slot() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=2), Gate()
        bulk = asyncio.create_task(submit(batcher, "bulk", gate, rows(*range(12))))
        await started(gate)
        others = [asyncio.create_task(submit(batcher, key, gate, rows(100 + i))) for i, key in enumerate("abc")]
        more = asyncio.create_task(submit(batcher, "bulk", gate, rows(200, 201)))
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*others)
        assert not bulk.done()
        await asyncio.gather(bulk, more)
        assert gate.batches[:6] == [[0, 1], [2, 200], [100], [101], [102], [3, 201]]
        await batcher.close()

    asyncio.run(main())


def test_a_lane_that_had_an_idle_slot_at_once_has_had_its_turn() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=3, batch_seconds=10), Gate()
        latency = Latency(base=1e-3, per_row=1e-3)
        keys = ["bulk", "small", *["bulk"] * 8]
        tasks = [asyncio.create_task(submit(batcher, k, gate, rows(i), latency=latency)) for i, k in enumerate(keys)]
        await started(gate)
        gate.open.set()
        await asyncio.gather(*tasks)
        assert gate.batches[:2] == [[0, 2, 3], [1]]
        await batcher.close()

    asyncio.run(main())


def test_rows_of_several_shapes_take_turns_within_the_turns_of_their_lane() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=1), Gate()

        def many(key: str, width: int, count: int) -> asyncio.Task[Arrays]:
            return asyncio.create_task(submit(batcher, key, gate, np.full((count, width), width, np.float32)))

        tasks = [many("sizes", 1, 4)]
        await started(gate)
        tasks += [many("sizes", 2, 2), many("sizes", 3, 1), many("other", 9, 3)]
        await asyncio.sleep(0)
        gate.open.set()
        await asyncio.gather(*tasks)
        assert [batch[0][0] for batch in gate.batches] == [1, 1, 9, 2, 9, 3, 9, 1, 2, 1]  # type: ignore[index]
        await batcher.close()

    asyncio.run(main())


def test_slots_run_at_once() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=2, batch_rows=1), Gate()
        tasks = [asyncio.create_task(submit(batcher, "k", gate, rows(i))) for i in range(3)]
        await started(gate, 2)
        assert batcher.queue.rows == 1
        gate.open.set()
        await asyncio.gather(*tasks)
        await batcher.close()

    asyncio.run(main())


def test_the_queue_is_bounded_in_rows_and_refuses_at_once() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=1, queue_rows=3), Gate()
        running = asyncio.create_task(submit(batcher, "k", gate, rows(0)))
        await started(gate)
        waiting = asyncio.create_task(submit(batcher, "k", gate, rows(1, 2)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="full"):
            await submit(batcher, "k", gate, rows(3, 4))
        fitting = asyncio.create_task(submit(batcher, "k", gate, rows(5)))
        await asyncio.sleep(0)
        assert batcher.admission.refused_rows == 2
        gate.open.set()
        await asyncio.gather(running, waiting, fitting)
        await batcher.close()

    asyncio.run(main())


def test_rows_that_no_queue_could_hold_are_a_mistake_of_who_sends_them() -> None:
    async def main() -> None:
        batcher = Batcher(queue_rows=8)
        for rows_, cost in ((9, 1), (1, 9), (3, 3)):
            with pytest.raises(InvalidInput, match=r"9 rows .* 8"):
                check(batcher, "k", rows_, cost)
            with pytest.raises(InvalidInput, match=r"9 rows .* 8"):
                await submit(batcher, "k", double, rows(*range(rows_)), cost=cost)
        assert batcher.admission.refused_rows == 0
        with hold(batcher, "k", 4, cost=2), pytest.raises(Overloaded):
            check(batcher, "k", 1)
        await batcher.close()

    asyncio.run(main())


def test_cancelled_rows_are_dropped_and_harm_no_neighbour() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1), Gate()
        running = asyncio.create_task(submit(batcher, "k", gate, rows(0)))
        await started(gate)
        tasks = [asyncio.create_task(submit(batcher, "k", gate, rows(i))) for i in (1, 2, 3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        running.cancel()  # its rows are in a slot already
        await asyncio.sleep(0)
        assert batcher.queue.rows == 2
        gate.open.set()
        assert (await tasks[0])["double"].tolist() == [2]
        assert (await tasks[2])["double"].tolist() == [6]
        assert gate.batches == [[0], [1, 3]]
        assert batcher.dropped_rows == 1
        await batcher.close()

    asyncio.run(main())


def test_overdue_rows_are_dropped_with_an_error() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1), Gate()
        running = asyncio.create_task(submit(batcher, "k", gate, rows(0)))
        await started(gate)
        late = asyncio.create_task(submit(batcher, "k", gate, rows(1), deadline=time.monotonic() + 0.01))
        await asyncio.sleep(0.03)
        gate.open.set()
        with pytest.raises(DeadlineExceeded):
            await late
        await running
        assert gate.batches == [[0]]
        await batcher.close()

    asyncio.run(main())


def test_a_failing_batch_is_run_once_more_by_request() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1), Gate(fail=lambda batch: bool((batch == 2).any()))
        running = asyncio.create_task(submit(batcher, "k", gate, rows(0)))
        await started(gate)
        tasks = [asyncio.create_task(submit(batcher, "k", gate, rows(i))) for i in (1, 2, 3)]
        await asyncio.sleep(0)
        gate.open.set()
        good, bad, also_good = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(good, dict)
        assert isinstance(also_good, dict)
        assert isinstance(bad, RuntimeError)
        assert gate.batches == [[0], [1, 2, 3], [1], [2], [3]]
        assert batcher.failed_batches == 1
        await running
        await batcher.close()

    asyncio.run(main())


def test_a_run_that_answers_other_rows_than_it_was_given_is_an_error() -> None:
    async def main() -> None:
        batcher = Batcher()
        with pytest.raises(RuntimeError, match="number of rows"):
            await submit(batcher, "k", lambda batch: {"double": batch[:1]}, rows(1, 2))
        await batcher.close()

    asyncio.run(main())


def test_closing_drains_what_was_accepted_and_refuses_the_rest() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=1), Gate()
        tasks = [asyncio.create_task(submit(batcher, "k", gate, rows(i))) for i in range(3)]
        await started(gate)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="stopping"):
            await submit(batcher, "k", gate, rows(9))
        gate.open.set()
        answers = await asyncio.gather(*tasks)
        assert [answer["double"].tolist() for answer in answers] == [[0], [2], [4]]
        await closing

    asyncio.run(main())


QUICK = Latency(base=1e-6, per_row=1e-6)
"""Of a graph that runs on the event loop."""
SLOW = Latency(base=1.0, per_row=1.0)
"""Of one that never does."""


def test_rows_that_would_wait_too_long_are_refused_but_other_lanes_are_not() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, wait_seconds=3), Gate()
        running = asyncio.create_task(submit(batcher, "k", gate, rows(0), latency=SLOW))
        await started(gate)
        tasks = [asyncio.create_task(submit(batcher, "k", gate, rows(i), latency=SLOW)) for i in (1, 2)]
        await asyncio.sleep(0)  # the second waits two seconds, for one row and what a batch costs besides
        with pytest.raises(Overloaded, match="full"):
            await submit(batcher, "k", gate, rows(3), latency=SLOW)
        tasks.append(asyncio.create_task(submit(batcher, "other", gate, rows(4), latency=SLOW)))
        await asyncio.sleep(0)
        assert batcher.queue.rows == 3
        gate.open.set()
        await asyncio.gather(running, *tasks)
        await batcher.close()

    asyncio.run(main())


def test_who_sends_each_row_in_another_shape_waits_no_longer_than_others() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, wait_seconds=7), Gate()
        sizes = [np.zeros((1, width), np.float32) for width in range(1, 7)]
        tasks = [asyncio.create_task(submit(batcher, "k", gate, sizes[0], latency=SLOW))]
        await started(gate)
        tasks += [asyncio.create_task(submit(batcher, "k", gate, size, latency=SLOW)) for size in sizes[1:5]]
        await asyncio.sleep(0)  # four of them wait, two seconds each
        with pytest.raises(Overloaded, match="full"):
            await submit(batcher, "k", gate, sizes[5], latency=SLOW)
        gate.open.set()
        await asyncio.gather(*tasks)
        await batcher.close()

    asyncio.run(main())


def test_how_long_rows_would_wait_follows_how_long_batches_take_now() -> None:
    async def main() -> None:
        batcher = Batcher(slots=1, wait_seconds=0.2)
        latency = Latency(base=1e-3, per_row=1e-3)

        def slowly(batch: NDArray[Any]) -> Arrays:
            time.sleep(0.03)  # at more than the largest pace: ten times as slow as it was measured
            return double(batch)

        def refused(count: int) -> bool:
            """Whether one row more than so many is."""
            with hold(batcher, "k", count, latency):
                try:
                    check(batcher, "k", 1)
                except Overloaded:
                    return True
                return False

        assert not refused(100)  # of which each takes a thousandth and something
        for _ in range(30):
            await submit(batcher, "k", slowly, rows(1), latency=latency)
        assert refused(100)
        assert not refused(3)
        await batcher.close()

    asyncio.run(main())


def test_who_holds_a_place_is_let_in_and_who_comes_behind_is_not() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=1, queue_rows=4), Gate()
        running = asyncio.create_task(submit(batcher, "k", gate, rows(0)))
        await started(gate)
        with hold(batcher, "k", 3) as place:
            with pytest.raises(Overloaded):
                await submit(batcher, "k", gate, rows(1, 2))
            first = asyncio.create_task(submit(batcher, "another", gate, rows(3, 4), reservation=place))
            await asyncio.sleep(0)  # what it needs before keeps its place
            second = asyncio.create_task(submit(batcher, "k", gate, rows(5, 6, 7), reservation=place))
            await asyncio.sleep(0)
            third = asyncio.create_task(submit(batcher, "k", gate, rows(8), reservation=place))
            await asyncio.sleep(0)
            assert batcher.queue.rows == 6
            gate.open.set()
            await asyncio.gather(running, first, second, third)
        with hold(batcher, "k", 4):
            pass
        check(batcher, "k", 4)  # nothing is left of it
        await batcher.close()
        with pytest.raises(Overloaded, match="stopping"):
            await submit(batcher, "k", gate, rows(1), reservation=place)

    asyncio.run(main())


def test_cancelled_rows_make_room_at_once() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=1, queue_rows=2), Gate()
        running = asyncio.create_task(submit(batcher, "k", gate, rows(0)))
        await started(gate)
        gone = asyncio.create_task(submit(batcher, "k", gate, rows(1, 2)))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert (batcher.queue.rows, batcher.dropped_rows) == (0, 2)
        check(batcher, "k", 2)
        gate.open.set()
        await running
        assert gate.batches == [[0]]
        await batcher.close()

    asyncio.run(main())


def test_where_the_event_loop_is_late_a_slot_has_its_next_batch_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.inference.batcher.MAX_EVENT_LOOP_LAG", 0.002)

    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=1), Gate()
        for number in range(10):
            task = asyncio.create_task(submit(batcher, "k", gate, rows(number)))
            await started(gate, number + 1)
            gate.open.set()
            time.sleep(0.03)  # noqa: ASYNC251 (nothing else runs meanwhile)
            gate.open.clear()
            await task
        tasks = [asyncio.create_task(submit(batcher, "k", gate, rows(100 + i))) for i in range(3)]
        await started(gate, 11)
        assert batcher.queue.rows == 1  # and not two
        gate.open.set()
        await asyncio.gather(*tasks)
        await batcher.close()

    asyncio.run(main())


def test_what_is_quick_runs_on_the_event_loop_and_what_is_not_in_a_slot() -> None:
    async def main() -> None:
        batcher = Batcher(slots=2)
        ran: list[int] = []

        def run(batch: NDArray[Any]) -> Arrays:
            ran.append(threading.get_ident())
            return double(batch)

        await submit(batcher, "quick", run, rows(1), latency=QUICK)
        await submit(batcher, "slow", run, rows(1), latency=SLOW)
        await submit(batcher, "unknown", run, rows(1))
        assert [thread == threading.get_ident() for thread in ran] == [True, False, False]
        await batcher.close()

    asyncio.run(main())


def test_quick_rows_wait_for_no_slot() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1), Gate()
        held = asyncio.create_task(submit(batcher, "slow", gate, rows(0), latency=SLOW))
        await started(gate)
        answer = await asyncio.wait_for(submit(batcher, "quick", double, rows(7), latency=QUICK), PATIENCE)
        assert answer["double"].tolist() == [14]
        gate.open.set()
        await held
        await batcher.close()

    asyncio.run(main())


def test_a_backlog_is_spread_over_free_slots_but_in_batches_that_are_worth_a_call() -> None:
    async def main(latency: Latency, expected: list[int]) -> None:
        batcher, gate = Batcher(slots=2, batch_rows=64, batch_seconds=1000), Gate()
        gate.open.set()
        await submit(batcher, "k", gate, rows(*range(20)), latency=latency)
        assert sorted(map(len, gate.batches), reverse=True) == expected
        await batcher.close()

    asyncio.run(main(Latency(base=1e-3, per_row=1.0), [10, 10]))  # a heavy graph gains nothing from batching
    asyncio.run(main(Latency(base=1.0, per_row=0.6), [15, 5]))  # less than 15 rows would not be worth a call
    asyncio.run(main(Latency(base=100.0, per_row=0.1), [20]))


def test_a_batch_takes_no_longer_than_those_behind_it_should_wait() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=64, batch_seconds=0.05), Gate()
        gate.open.set()
        await submit(batcher, "k", gate, rows(*range(20)), latency=Latency(base=1e-4, per_row=0.01))
        assert max(map(len, gate.batches)) == 4
        await batcher.close()

    asyncio.run(main())


def test_an_idle_slot_takes_a_batch_while_requests_still_arrive() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=64), Gate()
        latency = Latency(base=1e-3, per_row=1e-3)
        assert latency.thread_rows == 3
        tasks = [asyncio.create_task(submit(batcher, "k", gate, rows(i), latency=latency)) for i in range(5)]
        await started(gate)
        assert gate.batches == [[0, 1, 2]]  # and not five: it did not wait for the others
        gate.open.set()
        await asyncio.gather(*tasks)
        assert gate.batches == [[0, 1, 2], [3, 4]]
        await batcher.close()

    asyncio.run(main())


class Stop(BaseException):
    """No Exception: it would end a thread, or the event loop."""


@pytest.mark.parametrize("latency", [None, QUICK, SLOW])
@pytest.mark.parametrize("raised", [Stop, StopIteration, SystemExit, MemoryError])
def test_whatever_is_raised_reaches_the_request_and_ends_nothing_else(
    latency: Latency | None, raised: type[BaseException]
) -> None:
    async def main() -> None:
        batcher = Batcher(slots=1)

        def run(batch: NDArray[Any]) -> Arrays:
            if batch[0] < 0:
                raise raised
            return double(batch)

        with pytest.raises(MemoryError if raised is MemoryError else RuntimeError):
            await asyncio.wait_for(submit(batcher, "k", run, rows(-1), latency=latency), PATIENCE)
        answer = await asyncio.wait_for(submit(batcher, "k", run, rows(1), latency=latency), PATIENCE)
        assert answer["double"].tolist() == [2]
        await asyncio.wait_for(batcher.close(), PATIENCE)

    asyncio.run(main())


def test_pieces_that_do_not_fit_together_are_an_error() -> None:
    async def main() -> None:
        batcher, calls = Batcher(slots=1, batch_rows=2), 0

        def run(batch: NDArray[Any]) -> Arrays:
            nonlocal calls
            calls += 1
            return {"odd": np.zeros((len(batch), calls))}

        with pytest.raises(RuntimeError, match="different shapes"):
            await asyncio.wait_for(submit(batcher, "k", run, rows(1, 2, 3, 4)), PATIENCE)
        await asyncio.wait_for(batcher.close(), PATIENCE)

    asyncio.run(main())


def test_a_system_without_threads_is_noticed_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        Batcher(slots=1)


def test_no_rows_are_no_request() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="no rows"):
            await submit(Batcher(), "k", double, rows())

    asyncio.run(main())


def test_waiting_rows_are_known_by_owner() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=1), Gate()
        one, other = object(), object()
        tasks = [asyncio.create_task(submit(batcher, (one, "encoder"), gate, rows(1, 2, 3)))]
        await started(gate)
        tasks += [asyncio.create_task(submit(batcher, (other, "decoder"), gate, rows(4)))]
        await asyncio.sleep(0)
        assert (batcher.queue.rows_of(one), batcher.queue.rows_of(other), batcher.queue.rows) == (2, 1, 3)
        gate.open.set()
        await asyncio.gather(*tasks)
        assert batcher.queue.rows == 0
        await batcher.close()

    asyncio.run(main())


def test_where_the_time_went_is_added_up() -> None:
    async def main() -> None:
        batcher, timing, gate = Batcher(slots=1), Timing(), Gate()

        def slowly(batch: NDArray[Any]) -> Arrays:
            time.sleep(0.03)
            return double(batch)

        first = asyncio.create_task(submit(batcher, "a", gate, rows(1)))
        await started(gate)
        second = asyncio.create_task(submit(batcher, "b", slowly, rows(1), timing=timing))
        await asyncio.sleep(0.03)
        gate.open.set()
        await second
        assert timing.queue > 0.025
        assert timing.inference > 0.025
        before = timing.inference
        await submit(batcher, "b", slowly, rows(1), timing=timing)
        assert timing.inference > before + 0.025
        await first
        await batcher.close()

    asyncio.run(main())


request = st.fixed_dictionaries(
    {
        "key": st.sampled_from(["a", "b"]),
        "latency": st.sampled_from([None, QUICK, SLOW, Latency(1e-4, 1e-5), Latency(1e-6, 3e-4)]),
        "rows": st.integers(1, 12),
        "fails": st.integers(0, 5).map(lambda draw: draw == 0),
        "cancelled": st.integers(0, 5).map(lambda draw: draw == 0),
        "overdue": st.integers(0, 8).map(lambda draw: draw == 0),
        "pause": st.integers(0, 2),
        "sleep": st.integers(0, 12).map(lambda draw: draw == 0),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    requests=st.lists(request, min_size=1, max_size=25),
    slots=st.integers(1, 3),
    batch_rows=st.integers(1, 8),
    queue_rows=st.sampled_from([20, 60, 4096]),
)
def test_every_request_ends_and_gets_its_own_rows(
    requests: list[dict[str, Any]], slots: int, batch_rows: int, queue_rows: int
) -> None:
    def run(batch: NDArray[Any]) -> Arrays:
        assert len(batch) <= batch_rows
        if (batch < 0).any():
            raise RuntimeError("model raised")
        return double(batch)

    async def main() -> None:
        batcher = Batcher(slots=slots, batch_rows=batch_rows, queue_rows=queue_rows)
        tasks, sent = [], []
        for number, wanted in enumerate(requests):
            values = rows(*(100 * number + i + 1 for i in range(wanted["rows"])))
            sent.append(-values if wanted["fails"] else values)
            deadline = time.monotonic() - 1 if wanted["overdue"] else None
            key = wanted["key"], wanted["latency"]
            submitted = submit(batcher, key, run, sent[-1], latency=wanted["latency"], deadline=deadline)
            tasks.append(asyncio.create_task(submitted))
            for _ in range(wanted["pause"]):
                await asyncio.sleep(0)
            if wanted["sleep"]:
                await asyncio.sleep(0.001)
            if wanted["cancelled"]:
                tasks[-1].cancel()
        answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), PATIENCE)
        refused = 0
        for wanted, values, answer in zip(requests, sent, answers, strict=True):
            if isinstance(answer, asyncio.CancelledError):
                assert wanted["cancelled"]
            elif isinstance(answer, Overloaded):
                refused += len(values)
            elif isinstance(answer, DeadlineExceeded):
                assert wanted["overdue"]
            elif wanted["fails"]:
                assert isinstance(answer, RuntimeError)
            else:
                assert isinstance(answer, dict), answer
                assert not wanted["overdue"]
                assert answer["double"].tolist() == (2 * values).tolist()
        await asyncio.wait_for(batcher.close(), PATIENCE)
        assert batcher.queue.rows == 0
        assert batcher.admission.refused_rows >= refused  # more, where the refused were cancelled, too
        never_sent = sum(len(v) for w, v in zip(requests, sent, strict=True) if w["cancelled"])
        seen = batcher.rows + batcher.dropped_rows + batcher.admission.refused_rows
        assert sum(map(len, sent)) - never_sent <= seen <= sum(map(len, sent))

    asyncio.run(main())


def test_statistics_tell_what_became_of_requests() -> None:
    async def main() -> None:
        began, gate, seen = time.time(), Gate(lambda batch: 9 in batch), GraphStatistics()
        batcher = Batcher(queue_rows=5)
        first = asyncio.ensure_future(submit(batcher, "k", gate, rows(1), statistics=seen))
        await started(gate)
        waiting = [submit(batcher, "k", gate, rows(*it), statistics=seen) for it in ((2, 3), (9,))]
        late = submit(batcher, "k", gate, rows(4), statistics=seen, deadline=time.monotonic())
        gone = asyncio.ensure_future(submit(batcher, "k", gate, rows(5), statistics=seen))
        others = asyncio.gather(*waiting, late, return_exceptions=True)
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await submit(batcher, "k", gate, rows(6), statistics=seen)
        gone.cancel()
        gate.open.set()
        await asyncio.gather(first, others)
        assert (seen.requests, seen.rows, seen.failures) == (2, 3, 3)
        assert seen.batches == 2  # what failed together ran once more, one by one
        assert 0 < seen.queue < seen.failing + 1
        assert seen.inference > 0
        assert began <= seen.last <= time.time()
        await batcher.close()

    asyncio.run(main())


def test_a_costly_row_counts_as_several() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=6, queue_rows=8), Gate()
        running = asyncio.create_task(submit(batcher, "large", gate, rows(0), cost=3))
        await started(gate)
        large = asyncio.create_task(submit(batcher, "large", gate, rows(1, 2), cost=3))
        small = asyncio.create_task(submit(batcher, "small", gate, rows(3, 4)))
        await asyncio.sleep(0)
        assert batcher.queue.rows == 4
        with pytest.raises(Overloaded, match="full"):
            await submit(batcher, "small", gate, rows(5, 6, 7))
        gate.open.set()
        await asyncio.gather(running, large, small)
        assert gate.batches == [[0], [1, 2], [3, 4]]
        again = [submit(batcher, "large", gate, rows(value), cost=4) for value in (6, 7)]
        await asyncio.gather(*again)
        assert gate.batches[3:] == [[6], [7]]
        await batcher.close()

    asyncio.run(main())


def test_abandoned_costly_rows_make_room() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=6, queue_rows=8), Gate()
        running = asyncio.create_task(submit(batcher, "large", gate, rows(0), cost=3))
        await started(gate)
        gone = asyncio.create_task(submit(batcher, "large", gate, rows(1, 2), cost=3))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        waiting = asyncio.create_task(submit(batcher, "large", gate, rows(3, 4), cost=3))
        await asyncio.sleep(0)
        gate.open.set()
        assert (await waiting)["double"].tolist() == [6, 8]
        await running
        await batcher.close()

    asyncio.run(main())


def test_a_row_that_costs_more_than_a_batch_runs_alone() -> None:
    async def main() -> None:
        batcher = Batcher(slots=1, batch_rows=4)
        latency = Latency(1e-9, 1e-9)
        answers = [submit(batcher, "k", double, rows(value), cost=10, latency=latency) for value in (1, 2)]
        assert [it["double"].tolist() for it in await asyncio.gather(*answers)] == [[2], [4]]
        assert batcher.batches == 2
        await batcher.close()

    asyncio.run(main())
