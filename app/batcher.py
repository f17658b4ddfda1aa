"""A bounded queue of rows, executor slots, and futures. Knows arrays and callables only.

There is no timer. A free slot takes at once whatever is queued, up to a row budget, so a lone request waits for nothing
and a backlog forms batches by itself. Requests of the same key share batches; a request larger than its share is split
and leaves the rest of each batch to the others, so that bulk work cannot starve single requests.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import DeadlineExceeded, Overloaded

Arrays = dict[str, NDArray[Any]]
Run = Callable[[NDArray[Any]], Arrays]
"""Rows `[N, ...]` -> named outputs `[N, ...]`; called in a slot's thread."""


@dataclass(eq=False)
class _Job:
    """One request: its rows, how many of them are taken, and the pieces that have come back."""

    rows: NDArray[Any]
    future: asyncio.Future[Arrays]
    deadline: float | None
    taken: int = 0
    done: int = 0
    pieces: dict[int, Arrays] = field(default_factory=dict)

    @property
    def waiting(self) -> int:
        return len(self.rows) - self.taken


@dataclass(eq=False)
class _Lane:
    """The jobs of one key, in the order of their turns."""

    run: Run
    jobs: deque[_Job] = field(default_factory=deque)


@dataclass(frozen=True, eq=False)
class _Piece:
    """Rows `start` to `stop` of a job, as they go into a batch."""

    job: _Job
    start: int
    stop: int

    @property
    def rows(self) -> NDArray[Any]:
        return self.job.rows[self.start : self.stop]


@dataclass
class Counters:
    """What the batcher has seen since it started; read by the metrics."""

    batches: int = 0
    rows: int = 0
    refused_rows: int = 0
    dropped_rows: int = 0
    failed_batches: int = 0


class Batcher:
    """Runs rows in `slots` threads, at most `batch_rows` at a time, and refuses beyond `queue_rows` waiting rows.

    Everything but the callables runs on the event loop's thread, so there is no lock. Make and use it on one loop.
    """

    def __init__(self, *, slots: int = 1, batch_rows: int = 32, queue_rows: int = 4096) -> None:
        self._slots, self._batch_rows, self._queue_rows = slots, batch_rows, queue_rows
        self._executor = ThreadPoolExecutor(slots, thread_name_prefix="slot")
        self._lanes: dict[Hashable, _Lane] = {}
        self._busy: set[asyncio.Task[None]] = set()
        self.closed = False
        self.counters = Counters()

    @property
    def queued_rows(self) -> int:
        """Rows that wait for a slot."""
        return sum(job.waiting for lane in self._lanes.values() for job in lane.jobs if not job.future.done())

    async def submit(self, key: Hashable, run: Run, rows: NDArray[Any], *, deadline: float | None = None) -> Arrays:
        """Run `rows` `[N, ...]`, N >= 1, in batches with other rows of the same `key`; returns outputs `[N, ...]`.

        `deadline` is a time of `time.monotonic()`; rows still waiting then are dropped. Cancelling the caller drops
        what waits and leaves the neighbours alone.

        Raises:
            Overloaded: the queue has no room for these rows, or the batcher is closed.
            DeadlineExceeded: rows were still waiting at the deadline.
            Exception: whatever `run` raised for this request's rows.
        """
        if self.closed or self.queued_rows + len(rows) > self._queue_rows:
            self.counters.refused_rows += len(rows)
            raise Overloaded("the server is stopping" if self.closed else "the queue is full")
        job = _Job(rows, asyncio.get_running_loop().create_future(), deadline)
        self._lanes.setdefault(key, _Lane(run)).jobs.append(job)
        self._fill_slots()
        return await job.future

    async def close(self) -> None:
        """Refuse new rows, wait until all accepted ones have ended, and stop the threads."""
        self.closed = True
        while self._busy:
            await asyncio.wait(self._busy)
        self._executor.shutdown()

    def _fill_slots(self) -> None:
        while len(self._busy) < self._slots and (collected := self._collect()):
            task = asyncio.create_task(self._run(*collected))
            self._busy.add(task)
            task.add_done_callback(self._slot_freed)

    def _slot_freed(self, task: asyncio.Task[None]) -> None:
        self._busy.discard(task)
        self._fill_slots()

    def _collect(self) -> tuple[Run, list[_Piece]] | None:
        """Take the next lane's turn: up to `batch_rows` rows of it. None when nothing waits."""
        while self._lanes:
            key = next(iter(self._lanes))
            lane = self._lanes.pop(key)
            pieces = self._take(lane)
            if lane.jobs:  # behind the other lanes
                self._lanes[key] = lane
            if pieces:
                return lane.run, pieces
        return None

    def _take(self, lane: _Lane) -> list[_Piece]:
        """Share a batch's rows among the jobs at the head of the lane: max-min fair, one piece a job."""
        window: list[_Job] = []
        while lane.jobs and len(window) < self._batch_rows:
            job = lane.jobs.popleft()
            if self._wanted(job):
                window.append(job)
            else:
                self.counters.dropped_rows += job.waiting
        pieces, room = [], self._batch_rows
        for sharers, job in zip(range(len(window), 0, -1), sorted(window, key=lambda job: job.waiting), strict=True):
            count = min(job.waiting, room // sharers)  # what the small ones leave goes to the large ones
            pieces.append(_Piece(job, job.taken, job.taken + count))
            job.taken += count
            room -= count
        lane.jobs.extendleft(job for job in reversed(window) if job.waiting)
        return pieces

    @staticmethod
    def _wanted(job: _Job) -> bool:
        if job.future.done():
            return False
        if job.deadline is not None and time.monotonic() > job.deadline:
            job.future.set_exception(DeadlineExceeded("the rows were still waiting at the deadline"))
            return False
        return True

    async def _run(self, run: Run, pieces: list[_Piece]) -> None:
        self.counters.batches += 1
        self.counters.rows += sum(len(piece.rows) for piece in pieces)
        try:
            rows = pieces[0].rows if len(pieces) == 1 else np.concatenate([piece.rows for piece in pieces])
            self._deliver(pieces, await self._in_slot(run, rows))
        except Exception:
            self.counters.failed_batches += 1
            for piece in pieces:
                await self._run_alone(run, piece)

    async def _run_alone(self, run: Run, piece: _Piece) -> None:
        """The one retry: an error reaches only the request that it belongs to."""
        try:
            self._deliver([piece], await self._in_slot(run, piece.rows))
        except Exception as error:
            if not piece.job.future.done():
                piece.job.future.set_exception(error)

    async def _in_slot(self, run: Run, rows: NDArray[Any]) -> Arrays:
        outputs = await asyncio.get_running_loop().run_in_executor(self._executor, run, rows)
        if any(len(output) != len(rows) for output in outputs.values()):
            raise RuntimeError("a graph answered another number of rows than it was given")
        return outputs

    @staticmethod
    def _deliver(pieces: list[_Piece], outputs: Arrays) -> None:
        at = 0
        for piece in pieces:
            job, count = piece.job, piece.stop - piece.start
            job.pieces[piece.start] = {name: output[at : at + count] for name, output in outputs.items()}
            job.done += count
            at += count
            if job.done == len(job.rows) and not job.future.done():
                job.future.set_result(_join(job.pieces))


def _join(pieces: dict[int, Arrays]) -> Arrays:
    if len(pieces) == 1:
        return next(iter(pieces.values()))
    ordered = [pieces[start] for start in sorted(pieces)]
    return {name: np.concatenate([piece[name] for piece in ordered]) for name in ordered[0]}
