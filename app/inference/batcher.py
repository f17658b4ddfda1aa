"""A bounded queue of rows, executor slots, and futures. Knows arrays and callables only.

There is no timer. Whatever is queued when the event loop next comes round, or when a slot frees, is taken at once, so a
lone request waits for nothing and a backlog forms batches by itself. Requests of the same key share batches where their
rows have one shape; a request larger than its share is split and leaves the rest of each batch to the others, so that
bulk work cannot starve single requests. Keys take turns, a batch each, and within its turns so do the shapes of a key.

How many rows a batch takes, and whether it runs in a slot's thread or at once on the event loop, follows from the
measured latency of its graph. So does how long rows would wait, which is the bound on what is accepted.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from threading import Barrier
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from app.errors import DeadlineExceeded, InvalidInput, Overloaded
from app.observability.timing import GraphName, Statistics, Timing
from app.observability.timing import GraphRun as Timed

Arrays = dict[str, NDArray[Any]]
Run = Callable[[NDArray[Any]], Arrays]
"""Rows `[N, ...]` -> named outputs `[N, ...]`; called in a slot's thread, or on the event loop where it is quick."""

FIT_ROWS = (1, 2, 8)
"""Batches whose latency is measured,"""
FIT_ROUNDS = 3
"""so many times, of which the quickest counts."""
INLINE_SECONDS = 0.001
"""Longest batch that runs on the event loop: about what handing it to a thread and back can cost."""
HANDOVER_SECONDS = 0.0001
"""Shortest batch that is worth a thread while the event loop has other things to do."""
OVERHEAD = 0.1
"""A batch is large enough when what a call costs, whatever its rows, is no more than this share of it."""
TOLERABLE_OVERHEAD = 0.3
"""The same of a batch that need not wait for more, because a slot has nothing else to do."""
LATEST_SHARE = 0.1
"""What the latest batch counts in averages over batches: of the pace at which they run,"""
LARGEST_PACE = 10.0
"""which it may be at most, because a process that was stopped for a while runs at its old pace again;"""
LATE_SECONDS = 0.002
"""and of how late the event loop hears of them: from so many seconds on each slot is given a batch ahead."""


@dataclass(frozen=True)
class Latency:
    """How long a graph takes for n rows: `base + per_row * n` seconds."""

    base: float
    per_row: float

    @classmethod
    def fit(cls, measured: dict[int, float]) -> "Latency":
        """Least squares through seconds by number of rows, two or more of them.

        A disturbed measurement may slope too little: a row takes a quarter of its share of the largest batch at least.
        """
        per_row, base = np.polyfit(list(measured), list(measured.values()), 1)
        largest = max(measured)
        return cls(max(float(base), 1e-9), max(float(per_row), measured[largest] / largest / 4, 1e-9))

    @classmethod
    def measured(cls, run: Run, row: NDArray[Any]) -> "Latency":
        """Of `run`, on this machine, for batches of rows like `row` `[1, ...]`."""
        seconds: dict[int, float] = {}
        for count in FIT_ROWS:
            rows = np.repeat(row, count, axis=0)
            for _ in range(FIT_ROUNDS):
                began = time.perf_counter()
                run(rows)
                seconds[count] = min(time.perf_counter() - began, seconds.get(count, math.inf))
        return cls.fit(seconds)

    def scaled(self, factor: float) -> "Latency":
        """For rows so many times as large."""
        return Latency(self.base, self.per_row * factor)

    def seconds(self, rows: int) -> float:
        """How long so many rows take."""
        return self.base + self.per_row * rows

    def rows(self, seconds: float) -> int:
        """How many rows fit into `seconds`; one does always."""
        return max(1, int((seconds - self.base) / self.per_row))

    @cached_property
    def enough(self) -> int:
        """Rows beyond which a larger batch wins next to nothing: 1 for heavy graphs, dozens for light ones."""
        return self._amortised(OVERHEAD)

    @cached_property
    def worth_a_thread(self) -> int:
        """Rows that go to an idle slot at once, while the event loop still reads requests."""
        return max(self._amortised(TOLERABLE_OVERHEAD), self.rows(HANDOVER_SECONDS))

    def _amortised(self, overhead: float) -> int:
        return max(1, math.ceil(self.base / self.per_row * (1 - overhead) / overhead))


@dataclass(eq=False)
class _Job:
    """One request: its rows, how many of them are taken, and the pieces that have come back."""

    rows: NDArray[Any]
    future: asyncio.Future[Arrays]
    deadline: float | None
    submitted: float
    statistics: Statistics | None
    began: float = 0.0
    taken: int = 0
    done: int = 0
    batch_rows: int = 0
    pieces: dict[int, Arrays] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        return len(self.rows) - self.taken

    def timed(self) -> Timed:
        """What became of it until now."""
        graph = (self.statistics.graph if self.statistics else None) or ("", "")
        return Timed(graph, len(self.rows), self.batch_rows, self.submitted, self.began, time.monotonic())


class _Weight(NamedTuple):
    """What a row is to the queue."""

    cost: int
    """As how many rows it counts, in the queue and in a batch."""
    largest: int
    """How many of its like make the largest batch,"""
    seconds: float
    """and its share of the time that this takes a slot; 0 where that is not known."""


@dataclass(eq=False)
class _Lane:
    """The jobs of one key whose rows have one shape, in the order of their turns."""

    key: Hashable
    shape: tuple[int, ...]
    run: Run
    latency: Latency | None
    weight: _Weight
    jobs: deque[_Job] = field(default_factory=deque)
    waiting: int = 0
    """Rows of its jobs that are not taken."""


@dataclass(eq=False)
class Reservation:
    """Room in the queue for `rows` of `key`, which their request will submit in a moment."""

    key: Hashable
    rows: int
    weight: _Weight


class Work(NamedTuple):
    """What the batcher knows of the request whose rows it runs."""

    timing: Timing | None = None
    """Where the time that its rows wait and take is added up."""
    reservation: Reservation | None = None
    """Room in the queue; None if its rows are admitted as they are submitted."""


@dataclass(eq=False)
class _Load:
    """What the rows of one key come to that wait or have a place."""

    cost: int = 0
    turns: float = 0.0
    """Batches that they make,"""
    seconds: float = 0.0
    """and how long these take one slot, by the latency of the graph."""


class _Piece(NamedTuple):
    """Rows `start` to `stop` of a job, as they go into a batch."""

    job: _Job
    start: int
    stop: int

    @property
    def rows(self) -> NDArray[Any]:
        return self.job.rows[self.start : self.stop]


class _Ran(NamedTuple):
    """Pieces that ran together, what became of them, and how long it took."""

    pieces: list[_Piece]
    outcome: Arrays | Exception
    seconds: float


class Observer(Protocol):
    """Who is told of what happens to the rows of each graph, on the event loop: it must be quick."""

    def waited(self, graph: GraphName, seconds: float) -> None:
        """A request's rows left the queue: the first of them was taken, or they were dropped."""

    def ran(self, graph: GraphName, rows: int, seconds: float) -> None:
        """A batch was run."""


@dataclass
class Counters:
    """What the batcher has seen since it started; read by the metrics."""

    batches: int = 0
    rows: int = 0
    refused_rows: int = 0
    dropped_rows: int = 0
    failed_batches: int = 0


class Batcher:
    """Runs rows in `slots` threads, at most `batch_rows` and about `batch_seconds` at a time. It refuses rows beyond
    `queue_rows` waiting ones, and where they would wait longer than `wait_seconds`.

    Everything but the callables runs on the event loop's thread, so there is no lock. Make and use it on one loop.
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
        self._batch_seconds, self._wait_seconds, self._observer = batch_seconds, wait_seconds, observer
        self._executor = ThreadPoolExecutor(slots, thread_name_prefix="slot")
        everyone = Barrier(slots)  # all threads start now, where a system that has none left is noticed
        list(self._executor.map(lambda _: everyone.wait(), range(slots)))
        self._lanes: dict[Hashable, dict[tuple[int, ...], _Lane]] = {}
        """By key and shape; the next turn is the first one's, of both."""
        self._loads: dict[Hashable, _Load] = {}
        self._cost = 0
        """Of all of them."""
        self._pace = 1.0
        """How long batches take now, in terms of the latency that was measured when nothing else ran."""
        self._late = 0.0
        """Seconds that a slot waits for the event loop, which may have much to do; see `_free`."""
        self._running = 0
        self._pumping = False
        self._idle = asyncio.Event()
        self.closed = False
        self.counters = Counters()

    @property
    def busy_slots(self) -> int:
        """Slots that run a batch."""
        return self._running

    @property
    def queued_rows(self) -> int:
        """Rows that wait to be taken."""
        return sum(lane.waiting for lanes in self._lanes.values() for lane in lanes.values())

    def queued_rows_of(self, owner: object) -> int:
        """Those of them whose key is a tuple that begins with `owner`."""
        owned = [lanes for key, lanes in self._lanes.items() if isinstance(key, tuple) and key[0] is owner]
        return sum(lane.waiting for lanes in owned for lane in lanes.values())

    def check_room(self, key: Hashable, rows: int, cost: int = 1) -> None:
        """Refuse `rows` of `key`, each of which counts as `cost`, where the queue has no room for them now.

        Raises:
            InvalidInput: they are more than the queue ever has room for.
            Overloaded: they are too many now, or would wait too long, or the batcher is closed.
        """
        if rows * cost > self.queue_rows:
            words = f"this needs {rows * cost} rows of the queue at once, which holds {self.queue_rows}: ask for less"
            raise InvalidInput(words)
        if self.closed or self._cost + rows * cost > self.queue_rows or self._wait(key) > self._wait_seconds:
            self.counters.refused_rows += rows
            raise Overloaded("the server is stopping" if self.closed else "the queue is full")

    @contextmanager
    def hold(self, key: Hashable, rows: int, latency: Latency | None = None, cost: int = 1) -> Iterator[Reservation]:
        """Hold room for `rows` of `key` until they are submitted with this place, or it ends: a request that runs
        several graphs is refused before the first of them, or not at all.

        Raises:
            InvalidInput: these rows are more than the queue ever has room for.
            Overloaded: it has no room for them now, or the batcher is closed.
        """
        self.check_room(key, rows, cost)
        place = Reservation(key, rows, self._weight(latency, cost))
        self._count(key, place.weight, rows)
        try:
            yield place
        finally:
            self._release(place, place.rows)

    def _release(self, place: Reservation, rows: int) -> None:
        """Give back room for so many rows, or for what is left."""
        if rows := min(rows, place.rows):
            place.rows -= rows
            self._count(place.key, place.weight, -rows)

    async def submit(
        self,
        key: Hashable,
        run: Run,
        rows: NDArray[Any],
        *,
        latency: Latency | None = None,
        cost: int = 1,
        deadline: float | None = None,
        timing: Timing | None = None,
        statistics: Statistics | None = None,
        place: Reservation | None = None,
    ) -> Arrays:
        """Run `rows` `[N, ...]`, N >= 1, in batches with other rows of the same `key`; returns outputs `[N, ...]`.

        `latency` is the graph's; without, every batch goes to a slot and takes up to `batch_rows`. Each row counts as
        `cost` of them, in the queue, too; both are the same for all rows of a key that have one shape. `deadline` is a
        time of `time.monotonic()`; rows still waiting then are dropped. To `timing` is added where the time went, to
        `statistics`, which requests of one key share, what became of them. Who holds a `place` is not refused for want
        of room. Cancelling the caller drops what waits and leaves the neighbours alone.

        Raises:
            InvalidInput: these rows are more than the queue ever has room for.
            Overloaded: it has no room for them now, or the batcher is closed.
            ValueError: there are no rows.
            DeadlineExceeded: rows were still waiting at the deadline.
            Exception: whatever `run` raised for this request's rows.
        """
        if not len(rows):
            raise ValueError("no rows")
        try:
            self._enter(key, len(rows), cost, place)
        except Overloaded:
            if statistics is not None:
                statistics.failed(0)
            raise
        loop = asyncio.get_running_loop()
        job = _Job(rows, loop.create_future(), deadline, time.monotonic(), statistics)
        lanes, shape = self._lanes.setdefault(key, {}), rows.shape[1:]
        lane = lanes.get(shape)
        if lane is None:
            lane = lanes[shape] = _Lane(key, shape, run, latency, self._weight(latency, cost))
        lane.jobs.append(job)
        self._wait_in(lane, len(rows))
        latency = lane.latency
        if latency and not self._running and len(lane.jobs) > 1 and lane.waiting >= latency.worth_a_thread:
            self._fill_slot(lane)
        if not self._pumping:
            self._pumping = True
            loop.call_soon(self._pump)
        try:
            outputs = await job.future
        except asyncio.CancelledError:
            self._abandon(lane, job)
            raise
        except Exception:
            if statistics is not None:
                statistics.failed(time.monotonic() - job.submitted)
            raise
        else:
            queue, inference = job.began - job.submitted, time.monotonic() - job.began
            if timing is not None:
                timing.queue += queue
                timing.inference += inference
            if statistics is not None:
                statistics.succeeded(len(rows), queue, inference)
            return outputs
        finally:
            if timing is not None and timing.runs is not None:
                timing.runs.append(job.timed())

    async def close(self) -> None:
        """Refuse new rows, wait until all accepted ones have ended, and stop the threads."""
        self.closed = True
        while self._lanes or self._running:
            self._idle.clear()
            await self._idle.wait()
        self._executor.shutdown()

    def _enter(self, key: Hashable, rows: int, cost: int, place: Reservation | None) -> None:
        if place is None or self.closed:
            self.check_room(key, rows, cost)
        elif place.key == key:
            self._release(place, rows)

    def _abandon(self, lane: _Lane, job: _Job) -> None:
        """Forget a job that nobody wants any more, at once: its rows count as waiting ones no longer."""
        if job.waiting:
            lane.jobs.remove(job)
            self._drop(lane, job)

    def _drop(self, lane: _Lane, job: _Job) -> None:
        """Never take what waits of a job that is out of its lane."""
        self.counters.dropped_rows += job.waiting
        self._wait_in(lane, -job.waiting)
        job.taken = len(job.rows)
        if not job.began:
            self._left(job, time.monotonic())

    def _wait_in(self, lane: _Lane, rows: int) -> None:
        """So many rows more wait there; fewer, where that is negative."""
        lane.waiting += rows
        self._count(lane.key, lane.weight, rows)

    def _count(self, key: Hashable, weight: _Weight, rows: int) -> None:
        """So many rows more of `key` wait or have a place; fewer, where that is negative."""
        cost = rows * weight.cost
        self._cost += cost
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = _Load()
        load.cost += cost
        load.turns += rows / weight.largest
        load.seconds += rows * weight.seconds
        if not load.cost:
            del self._loads[key]

    def _wait(self, key: Hashable) -> float:
        """About how many seconds rows of `key` would wait that came now: until what is before them, whatever its shape,
        has had its turns, and as many batches of each other key with it."""
        own = self._loads.get(key)
        if own is None:
            return 0.0
        seconds = own.seconds
        if len(self._loads) > 1:
            seconds = sum(load.seconds * min(1.0, own.turns / load.turns) for load in self._loads.values())
        return self._pace * seconds / self.slots

    def _weight(self, latency: Latency | None, cost: int) -> _Weight:
        largest = max(1, self._batch_rows // cost)
        if latency is None:
            return _Weight(cost, largest, 0.0)
        largest = min(largest, latency.rows(self._batch_seconds))
        return _Weight(cost, largest, latency.seconds(largest) / largest)

    def _pump(self) -> None:
        """Give the keys their turns, as long as there are slots; what is quick runs here."""
        self._pumping = False
        while turns := [lane for lane in map(_first, self._lanes.values()) if self._free > 0 or self._is_quick(lane)]:
            for lane in turns:
                self._turn(lane)
        if not self._lanes and not self._running:
            self._idle.set()

    def _turn(self, lane: _Lane) -> None:
        """The turn of a lane, if there still is a slot for it; else it keeps its place."""
        if self._is_quick(lane):
            if pieces := self._take(lane, lane.waiting):
                self._delivered(*_run(lane.run, pieces))
        elif self._free > 0:
            self._fill_slot(lane)

    def _fill_slot(self, lane: _Lane) -> None:
        if pieces := self._take(lane, self._share(lane)):
            self._start(lane, pieces)

    def _is_quick(self, lane: _Lane) -> bool:
        """Whether everything that waits there runs in less time than a thread's turn costs."""
        return (
            lane.latency is not None
            and lane.latency.seconds(lane.waiting) <= INLINE_SECONDS
            and lane.waiting * lane.weight.cost <= self._batch_rows
        )

    def _share(self, lane: _Lane) -> int:
        """How many rows the next batch of a lane takes: an equal share for each free slot, but enough to be worth a
        call, and few enough that those who come after wait no longer than `batch_seconds`."""
        if lane.latency is None:
            return lane.weight.largest
        share = math.ceil(lane.waiting / self._free)
        return min(lane.weight.largest, max(share, lane.latency.enough))

    def _take(self, lane: _Lane, room: int) -> list[_Piece]:
        """Share `room` rows of a batch among the jobs at the head of the lane: max-min fair, one piece a job. That was
        the lane's turn, and its key's: they go behind the others."""
        window: list[_Job] = []
        while lane.jobs and len(window) < room:
            job = lane.jobs.popleft()
            if self._wanted(job):
                window.append(job)
            else:
                self._drop(lane, job)
        pieces, now = [], time.monotonic()
        for sharers, job in zip(range(len(window), 0, -1), sorted(window, key=lambda job: job.waiting), strict=True):
            count = min(job.waiting, room // sharers)  # what the small ones leave goes to the large ones
            pieces.append(_Piece(job, job.taken, job.taken + count))
            if not job.began:
                job.began = now
                self._left(job, now)
            job.taken += count
            room -= count
        self._wait_in(lane, -sum(piece.stop - piece.start for piece in pieces))
        lane.jobs.extendleft(job for job in reversed(window) if job.waiting)
        lanes = self._lanes.pop(lane.key)
        del lanes[lane.shape]
        if lane.jobs:
            lanes[lane.shape] = lane
        if lanes:
            self._lanes[lane.key] = lanes
        return pieces

    def _left(self, job: _Job, now: float) -> None:
        """Tell that a job waits no longer."""
        if self._observer is not None and job.statistics is not None and job.statistics.graph is not None:
            self._observer.waited(job.statistics.graph, now - job.submitted)

    @staticmethod
    def _wanted(job: _Job) -> bool:
        if job.future.done():
            return False
        if job.deadline is not None and time.monotonic() > job.deadline:
            job.future.set_exception(DeadlineExceeded("the rows were still waiting at the deadline"))
            return False
        return True

    def _start(self, lane: _Lane, pieces: list[_Piece]) -> None:
        """Run pieces in a slot; what comes of them is delivered on the event loop."""
        self._running += 1
        loop, run = asyncio.get_running_loop(), lane.run
        expected = lane.latency.seconds(sum(piece.stop - piece.start for piece in pieces)) if lane.latency else 0.0

        def work() -> None:
            began = time.perf_counter()
            failed, ran = _run(run, pieces)
            ended = time.perf_counter()
            loop.call_soon_threadsafe(self._ended, failed, ran, ended, (ended - began) / expected if expected else None)

        self._executor.submit(work)

    def _ended(self, failed: bool, ran: list[_Ran], ended: float, pace: float | None) -> None:
        """A slot has run its batch: the event loop hears of it now."""
        self._running -= 1
        self._late += LATEST_SHARE * (time.perf_counter() - ended - self._late)
        if pace is not None:
            self._pace += LATEST_SHARE * (min(pace, LARGEST_PACE) - self._pace)
        self._delivered(failed, ran)
        self._pump()

    @property
    def _free(self) -> int:
        """Batches that may be handed out: one for each slot, and where the event loop is late one more, so that a slot
        need not wait for it."""
        return self.slots * (1 if self._late < LATE_SECONDS else 2) - self._running

    def _delivered(self, failed: bool, ran: list[_Ran]) -> None:
        self.counters.batches += 1
        self.counters.failed_batches += failed
        for pieces, outcome, seconds in ran:
            rows = sum(piece.stop - piece.start for piece in pieces)
            self.counters.rows += rows
            if isinstance(outcome, Exception):
                for piece in pieces:
                    if not piece.job.future.done():
                        piece.job.future.set_exception(outcome)
            else:
                if (statistics := pieces[0].job.statistics) is not None:
                    statistics.batches += 1
                    if self._observer is not None and statistics.graph is not None:
                        self._observer.ran(statistics.graph, rows, seconds)
                _deliver(pieces, outcome, rows)


def _first(lanes: dict[tuple[int, ...], _Lane]) -> _Lane:
    return next(iter(lanes.values()))


def _run(run: Run, pieces: list[_Piece]) -> tuple[bool, list[_Ran]]:
    """Run pieces as one batch; where that fails, once more one by one, so that an error reaches only its owner.

    Returns whether it failed, and what became of the pieces.
    """
    began = time.monotonic()
    try:
        return False, [_Ran(pieces, _run_batch(run, pieces), time.monotonic() - began)]
    except BaseException:
        return True, [_run_alone(run, piece) for piece in pieces]


def _run_alone(run: Run, piece: _Piece) -> _Ran:
    began = time.monotonic()
    outcome = _outcome_alone(run, piece)
    return _Ran([piece], outcome, time.monotonic() - began)


def _outcome_alone(run: Run, piece: _Piece) -> Arrays | Exception:
    try:
        return _run_batch(run, [piece])
    except StopIteration as error:  # which a future would not take
        return RuntimeError(repr(error))
    except Exception as error:
        return error
    except BaseException as error:  # which would end the slot, or the event loop
        return RuntimeError(repr(error))


def _run_batch(run: Run, pieces: list[_Piece]) -> Arrays:
    rows = pieces[0].rows if len(pieces) == 1 else np.concatenate([piece.rows for piece in pieces])
    outputs = run(rows)
    if any(len(output) != len(rows) for output in outputs.values()):
        raise RuntimeError("a graph answered another number of rows than it was given")
    return outputs


def _deliver(pieces: list[_Piece], outputs: Arrays, batch_rows: int) -> None:
    at = 0
    for piece in pieces:
        job, count = piece.job, piece.stop - piece.start
        job.pieces[piece.start] = {name: output[at : at + count] for name, output in outputs.items()}
        job.done += count
        job.batch_rows = max(job.batch_rows, batch_rows)
        at += count
        if job.done == len(job.rows) and not job.future.done():
            try:
                job.future.set_result(_join(job.pieces))
            except Exception as error:  # no memory, or pieces that do not fit together
                job.future.set_exception(error)


def _join(pieces: dict[int, Arrays]) -> Arrays:
    if len(pieces) == 1:
        return next(iter(pieces.values()))
    ordered = [pieces[start] for start in sorted(pieces)]
    return {name: np.concatenate([piece[name] for piece in ordered]) for name in ordered[0]}
