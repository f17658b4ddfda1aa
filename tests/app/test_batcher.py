"""The batcher: what it promises under arrivals, failures, cancellation and shutdown."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.batcher import Arrays, Batcher
from app.errors import DeadlineExceeded, Overloaded

Rows = NDArray[np.float32]


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
        assert self.open.wait(10)
        if self.fail(batch):
            raise RuntimeError("model raised")
        return double(batch)


async def started(gate: Gate, count: int = 1) -> None:
    """Wait until the gate has seen `count` batches."""
    while len(gate.batches) < count:  # noqa: ASYNC110 (the gate lives in a thread)
        await asyncio.sleep(0.001)


def test_a_lone_request_is_answered() -> None:
    async def main() -> None:
        batcher = Batcher()
        answer = await batcher.submit("k", double, rows(1, 2, 3))
        assert answer["double"].tolist() == [2, 4, 6]
        await batcher.close()

    asyncio.run(main())


def test_a_backlog_becomes_one_batch() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=8), Gate()
        first = asyncio.create_task(batcher.submit("k", gate, rows(0)))
        await started(gate)
        tasks = [asyncio.create_task(batcher.submit("k", gate, rows(i))) for i in range(1, 5)]
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
        tasks = [asyncio.create_task(batcher.submit(key, gate, rows(i))) for i, key in enumerate("abab")]
        await started(gate)
        gate.open.set()
        await asyncio.gather(*tasks)
        assert gate.batches == [[0, 2], [1, 3]]
        await batcher.close()

    asyncio.run(main())


def test_a_large_request_is_split_and_takes_turns() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=4), Gate()
        large = asyncio.create_task(batcher.submit("k", gate, rows(*range(12))))
        await started(gate)
        small = asyncio.create_task(batcher.submit("k", gate, rows(100)))
        await asyncio.sleep(0)
        gate.open.set()
        assert (await small)["double"].tolist() == [200]
        assert not large.done()
        assert (await large)["double"].tolist() == [2 * i for i in range(12)]
        assert 100 in gate.batches[1]
        assert max(map(len, gate.batches)) <= 4
        await batcher.close()

    asyncio.run(main())


def test_slots_run_at_once() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=2, batch_rows=1), Gate()
        tasks = [asyncio.create_task(batcher.submit("k", gate, rows(i))) for i in range(3)]
        await started(gate, 2)
        assert batcher.queued_rows == 1
        gate.open.set()
        await asyncio.gather(*tasks)
        await batcher.close()

    asyncio.run(main())


def test_the_queue_is_bounded_in_rows_and_refuses_at_once() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=1, queue_rows=3), Gate()
        running = asyncio.create_task(batcher.submit("k", gate, rows(0)))
        await started(gate)
        waiting = asyncio.create_task(batcher.submit("k", gate, rows(1, 2)))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="full"):
            await batcher.submit("k", gate, rows(3, 4))
        fitting = asyncio.create_task(batcher.submit("k", gate, rows(5)))
        await asyncio.sleep(0)
        assert batcher.counters.refused_rows == 2
        gate.open.set()
        await asyncio.gather(running, waiting, fitting)
        await batcher.close()

    asyncio.run(main())


def test_cancelled_rows_are_dropped_and_harm_no_neighbour() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1), Gate()
        running = asyncio.create_task(batcher.submit("k", gate, rows(0)))
        await started(gate)
        tasks = [asyncio.create_task(batcher.submit("k", gate, rows(i))) for i in (1, 2, 3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        running.cancel()  # its rows are in a slot already
        await asyncio.sleep(0)
        assert batcher.queued_rows == 2
        gate.open.set()
        assert (await tasks[0])["double"].tolist() == [2]
        assert (await tasks[2])["double"].tolist() == [6]
        assert gate.batches == [[0], [1, 3]]
        assert batcher.counters.dropped_rows == 1
        await batcher.close()

    asyncio.run(main())


def test_overdue_rows_are_dropped_with_an_error() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1), Gate()
        running = asyncio.create_task(batcher.submit("k", gate, rows(0)))
        await started(gate)
        late = asyncio.create_task(batcher.submit("k", gate, rows(1), deadline=time.monotonic() + 0.01))
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
        running = asyncio.create_task(batcher.submit("k", gate, rows(0)))
        await started(gate)
        tasks = [asyncio.create_task(batcher.submit("k", gate, rows(i))) for i in (1, 2, 3)]
        await asyncio.sleep(0)
        gate.open.set()
        good, bad, also_good = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(good, dict)
        assert isinstance(also_good, dict)
        assert isinstance(bad, RuntimeError)
        assert gate.batches == [[0], [1, 2, 3], [1], [2], [3]]
        assert batcher.counters.failed_batches == 1
        await running
        await batcher.close()

    asyncio.run(main())


def test_a_run_that_answers_other_rows_than_it_was_given_is_an_error() -> None:
    async def main() -> None:
        batcher = Batcher()
        with pytest.raises(RuntimeError, match="number of rows"):
            await batcher.submit("k", lambda batch: {"double": batch[:1]}, rows(1, 2))
        await batcher.close()

    asyncio.run(main())


def test_closing_drains_what_was_accepted_and_refuses_the_rest() -> None:
    async def main() -> None:
        batcher, gate = Batcher(slots=1, batch_rows=1), Gate()
        tasks = [asyncio.create_task(batcher.submit("k", gate, rows(i))) for i in range(3)]
        await started(gate)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="stopping"):
            await batcher.submit("k", gate, rows(9))
        gate.open.set()
        answers = await asyncio.gather(*tasks)
        assert [answer["double"].tolist() for answer in answers] == [[0], [2], [4]]
        await closing

    asyncio.run(main())


request = st.fixed_dictionaries(
    {
        "key": st.sampled_from("ab"),
        "rows": st.integers(1, 9),
        "fails": st.integers(0, 9).map(lambda draw: draw == 0),
        "cancelled": st.integers(0, 5).map(lambda draw: draw == 0),
        "pause": st.integers(0, 2),
    }
)


@settings(max_examples=60, deadline=None)
@given(requests=st.lists(request, min_size=1, max_size=25), slots=st.integers(1, 3), batch_rows=st.integers(1, 8))
def test_every_request_ends_and_gets_its_own_rows(requests: list[dict[str, Any]], slots: int, batch_rows: int) -> None:
    def run(batch: NDArray[Any]) -> Arrays:
        assert len(batch) <= batch_rows
        if (batch < 0).any():
            raise RuntimeError("model raised")
        return double(batch)

    async def main() -> None:
        batcher = Batcher(slots=slots, batch_rows=batch_rows)
        tasks, sent = [], []
        for number, wanted in enumerate(requests):
            values = rows(*(100 * number + i + 1 for i in range(wanted["rows"])))
            sent.append(-values if wanted["fails"] else values)
            tasks.append(asyncio.create_task(batcher.submit(wanted["key"], run, sent[-1])))
            for _ in range(wanted["pause"]):
                await asyncio.sleep(0)
            if wanted["cancelled"]:
                tasks[-1].cancel()
        answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        for wanted, values, answer in zip(requests, sent, answers, strict=True):
            if isinstance(answer, asyncio.CancelledError):
                assert wanted["cancelled"]
            elif wanted["fails"]:
                assert isinstance(answer, RuntimeError)
            else:
                assert isinstance(answer, dict), answer
                assert answer["double"].tolist() == (2 * values).tolist()
        assert batcher.queued_rows == 0
        await batcher.close()

    asyncio.run(main())
