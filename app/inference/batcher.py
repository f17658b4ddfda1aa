"""Runs rows of many requests in shared batches, in a few threads (slots), and returns the outputs through futures.

There is no timer. Queued rows are taken at the next iteration of the event loop, or when a slot becomes free, so a
lone request does not wait and a backlog forms batches by itself. Requests of the same key share batches if their
rows have one shape. Callers share each batch fairly, and so do the requests of one caller: a request larger than its
share is split, so that bulk work cannot starve single requests. Keys take turns, one batch each, and the shapes of a
key share its turns.

The measured latency of a graph decides how many rows a batch takes, and whether it runs in a slot's thread or at once
on the event loop. It also predicts how long rows would wait, which bounds what is admitted.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from app.errors import DeadlineExceeded, Overloaded
from app.inference.admission import LATEST_BATCH_WEIGHT, Admission, Reservation
from app.inference.execution import Ran, deliver, run_batch
from app.inference.latency import Latency, RunRows
from app.inference.offload import Offload
from app.inference.queue import Job, LaneSpec, Piece, QueuedLane, RowQueue
from app.maths.arrays import Arrays
from app.observability.timing import GraphName, GraphRun, GraphStatistics, Timing

INLINE_SECONDS = 0.001
"""Maximum duration, in seconds, of a batch on the event loop: about the cost of handing it to a thread and back."""
MAX_EVENT_LOOP_LAG = 0.002
"""Event-loop lag, in seconds, above which each slot is given one batch in advance."""


class Work(NamedTuple):
    """The request that rows are run for."""

    timing: Timing
    """Sums the seconds that the rows wait and run."""
    reservation: Reservation | None = None
    """Room in the queue; None if the rows are admitted as they are submitted."""


class Observer(Protocol):
    """Receives the batcher's events. It is called on the event loop and must be quick."""

    def waited(self, graph: GraphName, seconds: float) -> None:
        """A request's rows left the queue: the first of them was taken, or they were dropped."""

    def ran(self, graph: GraphName, rows: int, seconds: float) -> None:
        """A batch was run."""


class Batcher:
    """Runs rows in `slots` threads, at most `batch_rows` and about `batch_seconds` at a time.

    At most `queue_rows` may wait; rows whose predicted wait exceeds `wait_seconds` are refused. Everything but the
    graphs runs on the event loop's thread, so there is no lock. Make and use it on one event loop.
    """

    def __init__(
        self,
        *,
        slots: int = 1,
        batch_rows: int = 32,
        queue_rows: int = 4096,
        batch_seconds: float = 0.01,
        observer: Observer | None = None,
        wait_seconds: float = math.inf,
    ) -> None:
        self.slots, self._batch_rows, self.queue_rows = slots, batch_rows, queue_rows
        self._batch_seconds, self._observer = batch_seconds, observer
        self._executor = ThreadPoolExecutor(slots, thread_name_prefix="slot")
        all_started = Barrier(slots)  # start every thread now, so that a system without threads fails at start-up
        list(self._executor.map(lambda _: all_started.wait(), range(slots)))
        self.queue = RowQueue()
        self.admission = Admission(slots, queue_rows, wait_seconds)
        self.offload = Offload(slots, wait_seconds)
        """Runs what is no graph."""
        self.batches = self.rows = self.dropped_rows = self.failed_batches = 0
        """Totals since the start: batches and rows run, rows dropped before they ran, batches that raised."""
        self._event_loop_lag = 0.0
        """Moving average of the seconds from the end of a slot's batch to its callback on the event loop."""
        self.busy_slots = 0
        """Batches handed to the slots and not yet ended."""
        self._is_pump_scheduled = False
        self._idle = asyncio.Event()

    def lane(
        self,
        key: Hashable,
        run: RunRows,
        *,
        latency: Latency | None = None,
        cost: int = 1,
        statistics: GraphStatistics | None = None,
    ) -> LaneSpec:
        """Describe rows to be submitted: `run` is their graph, and each counts as `cost` rows.

        Without `latency`, every batch runs in a slot and takes up to `batch_rows`.
        """
        max_rows, seconds = max(1, self._batch_rows // cost), 0.0
        if latency is not None:
            max_rows = min(max_rows, latency.rows(self._batch_seconds))
            seconds = latency.seconds(max_rows) / max_rows
        return LaneSpec(key, run, latency, cost, max_rows, seconds, statistics or GraphStatistics())

    async def submit(self, spec: LaneSpec, rows: NDArray[Any], work: Work, *, deadline: float | None = None) -> Arrays:
        """Run `rows` `[N, ...]`, N >= 1, in batches with other rows of the same key; returns outputs `[N, ...]`.

        `deadline` is a time by `time.monotonic()`; rows that still wait then are dropped. Cancelling the caller drops
        its waiting rows and does not affect the other jobs of its batches.

        Raises:
            InvalidInput, Overloaded: as `Admission.check` does.
            ValueError: there are no rows.
            DeadlineExceeded: rows were still waiting at the deadline.
            Exception: what the graph raised for this request's rows.
        """
        if not len(rows):
            raise ValueError("no rows")
        statistics, caller = spec.statistics, work.timing.caller
        try:
            self.admission.admit(spec, len(rows), caller, work.reservation)
        except Overloaded:
            statistics.failed(0)
            raise
        job = Job(rows, asyncio.get_running_loop().create_future(), deadline, time.monotonic(), caller)
        lane = self.queue.add(spec, job)
        self._schedule(lane, job)
        try:
            outputs = await job.future
        except asyncio.CancelledError:
            if job.waiting_rows:
                self._dropped(lane, job, self.queue.remove(lane, job), time.monotonic())
            raise
        except Exception:
            statistics.failed(time.monotonic() - job.submitted)
            raise
        else:
            waited, ran = job.began - job.submitted, time.monotonic() - job.began
            work.timing.queue += waited
            work.timing.inference += ran
            statistics.succeeded(len(rows), waited, ran)
            return outputs
        finally:
            if work.timing.runs is not None:
                times = job.submitted, job.began, time.monotonic()
                work.timing.runs.append(GraphRun(statistics.graph, len(rows), job.max_batch_rows, *times))

    async def close(self) -> None:
        """Refuse new rows, wait until all accepted ones have ended, and stop the threads."""
        self.admission.is_closed = True
        while self.queue or self.busy_slots:
            self._idle.clear()
            await self._idle.wait()
        self._executor.shutdown()
        self.offload.close()

    def _schedule(self, lane: QueuedLane, job: Job) -> None:
        """Start a batch at once if every slot is idle, and the lane has enough rows and more than this job's; else at
        the next loop iteration."""
        latency, rows = lane.spec.latency, lane.waiting_rows
        if latency and not self.busy_slots and rows > len(job.rows) and rows >= latency.thread_rows:
            self._fill_slot(lane)
        if not self._is_pump_scheduled:
            self._is_pump_scheduled = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _dropped(self, lane: QueuedLane, job: Job, rows: int, now: float) -> None:
        self.dropped_rows += rows
        self.admission.leave(lane.spec, rows, job.caller)
        if not job.began:
            self._left_queue(lane, job, now)
        if not job.future.done():
            job.future.set_exception(DeadlineExceeded("the rows were still waiting at the deadline"))

    def _left_queue(self, lane: QueuedLane, job: Job, now: float) -> None:
        if self._observer is not None:
            self._observer.waited(lane.spec.statistics.graph, now - job.submitted)

    def _pump(self) -> None:
        """Give the keys their turns while slots are free; quick batches run here, on the event loop."""
        self._is_pump_scheduled = False
        while turns := [lane for lane in self.queue.turns() if self._free_slots > 0 or self._is_quick(lane)]:
            for lane in turns:
                if self._is_quick(lane):
                    if pieces := self._take(lane, lane.waiting_rows):
                        self._ran(lane.spec, *run_batch(lane.spec.run, pieces))
                elif self._free_slots > 0:
                    self._fill_slot(lane)
        if not self.queue and not self.busy_slots:
            self._idle.set()

    def _is_quick(self, lane: QueuedLane) -> bool:
        """Whether all waiting rows run in less time than handing them to a thread costs."""
        spec = lane.spec
        return (
            spec.latency is not None
            and spec.latency.seconds(lane.waiting_rows) <= INLINE_SECONDS
            and lane.waiting_rows * spec.cost <= self._batch_rows
        )

    @property
    def _free_slots(self) -> int:
        """Batches that the slots can take: one per slot, and one more if the event loop lags, so that no slot idles."""
        return self.slots * (1 if self._event_loop_lag < MAX_EVENT_LOOP_LAG else 2) - self.busy_slots

    def _next_batch_rows(self, lane: QueuedLane) -> int:
        """Rows of a lane's next batch: an equal share for each free slot, but enough to be efficient, and few enough
        that the batch ends within `batch_seconds`."""
        spec = lane.spec
        if spec.latency is None:
            return spec.max_batch_rows
        share = math.ceil(lane.waiting_rows / self._free_slots)
        return min(spec.max_batch_rows, max(share, spec.latency.efficient_rows))

    def _take(self, lane: QueuedLane, max_rows: int) -> list[Piece]:
        """Cut a batch from a lane, and drop the jobs that are cancelled or past their deadline."""
        now = time.monotonic()
        pieces, dropped = self.queue.take(lane, max_rows, now)
        for job, rows in dropped:
            self._dropped(lane, job, rows, now)
        rows_of: defaultdict[str, int] = defaultdict(int)
        for job, start, stop in pieces:
            rows_of[job.caller] += stop - start
            if not job.began:
                job.began = now
                self._left_queue(lane, job, now)
        for caller, rows in rows_of.items():
            self.admission.leave(lane.spec, rows, caller)
        return pieces

    def _fill_slot(self, lane: QueuedLane) -> None:
        """Run a lane's next batch in a slot; its outcome is delivered on the event loop."""
        pieces = self._take(lane, self._next_batch_rows(lane))
        if not pieces:
            return
        self.busy_slots += 1
        loop, spec = asyncio.get_running_loop(), lane.spec

        def run_in_slot() -> None:
            failed, ran = run_batch(spec.run, pieces)
            loop.call_soon_threadsafe(self._slot_ended, spec, failed, ran, time.perf_counter())

        self._executor.submit(run_in_slot)

    def _slot_ended(self, spec: LaneSpec, failed: bool, ran: list[Ran], ended: float) -> None:
        """Callback on the event loop after a slot ran a batch; `ended` is by `time.perf_counter()`."""
        self.busy_slots -= 1
        self._event_loop_lag += LATEST_BATCH_WEIGHT * (time.perf_counter() - ended - self._event_loop_lag)
        if spec.latency is not None:
            seconds, rows = sum(part.seconds for part in ran), sum(part.rows for part in ran)
            self.admission.observe(seconds / spec.latency.seconds(rows))
        self._ran(spec, failed, ran)
        self._pump()

    def _ran(self, spec: LaneSpec, failed: bool, ran: list[Ran]) -> None:
        self.batches += 1
        self.failed_batches += failed
        for part in ran:
            self.rows += part.rows
            if not isinstance(part.outcome, Exception):
                spec.statistics.batches += 1
                if self._observer is not None:
                    self._observer.ran(spec.statistics.graph, part.rows, part.seconds)
            deliver(part)
