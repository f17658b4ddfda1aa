"""The queue of rows: keys take turns (round robin), and the callers of one key and shape share each batch fairly.

It holds jobs and cuts batches from them. It starts nothing and waits for nothing: no threads, no event loop.
"""

import asyncio
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import NDArray

from app.inference.latency import Latency, RunRows
from app.maths.arrays import Arrays
from app.observability.timing import GraphStatistics


@dataclass(frozen=True, eq=False)
class LaneSpec:
    """The graph that queued rows are for, and their cost. Made once and reused."""

    key: Hashable
    """Keys take turns; rows of one key and shape share batches."""
    run: RunRows
    latency: Latency | None
    """The latency of `run`; None if unknown, and then its batches always run in a slot."""
    cost: int
    """Rows that each row counts as, in the queue and in a batch; more than 1 for large images."""
    max_batch_rows: int
    """Maximum rows in one batch."""
    row_seconds: float
    """Seconds per row that a batch of `max_batch_rows` occupies a slot; 0 if unknown."""
    statistics: GraphStatistics = field(default_factory=GraphStatistics)
    """Where the outcome of the requests is counted."""


@dataclass(eq=False)
class Job:
    """The rows of one request for one graph, and their progress."""

    rows: NDArray[Any]
    future: asyncio.Future[Arrays]
    deadline: float | None
    """Time by `time.monotonic()` after which rows that still wait are dropped; None if there is no deadline."""
    submitted: float
    """Time by `time.monotonic()`."""
    caller: str = ""
    """Who sent the request."""
    began: float = 0.0
    """When the first rows were taken, by `time.monotonic()`; 0 if none were."""
    taken: int = 0
    """Rows that no longer wait."""
    done: int = 0
    """Rows that have run."""
    max_batch_rows: int = 0
    """Rows of the largest batch that some of the job's rows were in; 0 if none ran."""
    outputs: Arrays = field(default_factory=dict)
    """Outputs `[N, ...]`, filled in as the rows run; stays empty if all rows run together."""

    @property
    def waiting_rows(self) -> int:
        return len(self.rows) - self.taken


class Piece(NamedTuple):
    """Rows `start` to `stop` of a job, which go into one batch."""

    job: Job
    start: int
    stop: int

    @property
    def rows(self) -> NDArray[Any]:
        """The rows `[stop - start, ...]`."""
        return self.job.rows[self.start : self.stop]


@dataclass(eq=False)
class QueuedLane:
    """The waiting jobs of one key whose rows have one shape."""

    spec: LaneSpec
    shape: tuple[int, ...]
    jobs: dict[str, deque[Job]] = field(default_factory=dict)
    """The jobs of each caller, in the order of the callers' turns."""
    waiting_rows: int = 0

    def next_jobs(self, count: int, now: float) -> tuple[dict[str, list[Job]], list[tuple[Job, int]]]:
        """Take out the next `count` jobs: callers take turns, one job each.

        Returns the jobs of each caller, and each dropped job with its number of waiting rows: a job is dropped if its
        future is done or its deadline is before `now`.
        """
        taken: dict[str, list[Job]] = {}
        dropped: list[tuple[Job, int]] = []
        while self.jobs and count:
            for caller in list(self.jobs)[:count]:
                job = self.jobs[caller].popleft()
                if not self.jobs[caller]:
                    del self.jobs[caller]
                if job.future.done() or (job.deadline is not None and now > job.deadline):
                    dropped.append((job, self.drop(job)))
                else:
                    taken.setdefault(caller, []).append(job)
                    count -= 1
        return taken, dropped

    def put_back(self, caller: str, jobs: list[Job]) -> None:
        """Put jobs that still have waiting rows before the others of their caller, and the caller behind the others."""
        waiting = self.jobs.pop(caller, None) or deque()
        waiting.extendleft([job for job in reversed(jobs) if job.waiting_rows])
        if waiting:
            self.jobs[caller] = waiting

    def drop(self, job: Job) -> int:
        """Let none of a job's rows wait any longer, and return how many did."""
        dropped = job.waiting_rows
        self.waiting_rows -= dropped
        job.taken = len(job.rows)
        return dropped


class RowQueue:
    """The lanes with waiting rows, in the order of their turns: by key, then by shape."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, dict[tuple[int, ...], QueuedLane]] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    @property
    def rows(self) -> int:
        return sum(lane.waiting_rows for lanes in self._lanes.values() for lane in lanes.values())

    def rows_of(self, owner: object) -> int:
        """Rows that wait with a key `(owner, ...)`."""
        owned = [lanes for key, lanes in self._lanes.items() if isinstance(key, tuple) and key[0] is owner]
        return sum(lane.waiting_rows for lanes in owned for lane in lanes.values())

    def turns(self) -> list[QueuedLane]:
        """For each key, in the order of turns, the lane whose turn it is."""
        return [next(iter(lanes.values())) for lanes in self._lanes.values()]

    def add(self, spec: LaneSpec, job: Job) -> QueuedLane:
        """Queue a job last of its caller's in its lane."""
        shape = job.rows.shape[1:]
        lanes = self._lanes.setdefault(spec.key, {})
        lane = lanes.get(shape)
        if lane is None:
            lane = lanes[shape] = QueuedLane(spec, shape)
        lane.jobs.setdefault(job.caller, deque()).append(job)
        lane.waiting_rows += len(job.rows)
        return lane

    def remove(self, lane: QueuedLane, job: Job) -> int:
        """Drop the waiting rows of a job, and return their number."""
        lane.jobs[job.caller].remove(job)
        if not lane.jobs[job.caller]:
            del lane.jobs[job.caller]
        dropped = lane.drop(job)
        if not lane.jobs:
            lanes = self._lanes[lane.spec.key]
            del lanes[lane.shape]
            if not lanes:
                del self._lanes[lane.spec.key]
        return dropped

    def take(self, lane: QueuedLane, max_rows: int, now: float) -> tuple[list[Piece], list[tuple[Job, int]]]:
        """Cut a batch of at most `max_rows` from the jobs at the head of a lane, one piece per job; this ends the
        turn of the lane and of its key.

        The rows are shared fairly among the callers, and those of each caller among its jobs.

        Returns the pieces, and each dropped job with its number of waiting rows; see `QueuedLane.next_jobs`.
        """
        jobs_of, dropped = lane.next_jobs(max_rows, now)
        pieces = []
        demands = [[job.waiting_rows for job in jobs] for jobs in jobs_of.values()]
        shares = fair_shares([sum(demand) for demand in demands], max_rows)
        for (caller, jobs), demand, share in zip(jobs_of.items(), demands, shares, strict=True):
            first = fair_shares(demand[:share], share)  # a row or more for each, the oldest jobs
            for job, rows in zip(jobs, first, strict=False):
                pieces.append(Piece(job, job.taken, job.taken + rows))
                job.taken += rows
            lane.waiting_rows -= share
            lane.put_back(caller, jobs)
        self._requeue(lane)
        return pieces, dropped

    def _requeue(self, lane: QueuedLane) -> None:
        """Put a lane behind the others of its key, and its key behind the other keys; drop what is empty."""
        lanes = self._lanes.pop(lane.spec.key)
        del lanes[lane.shape]
        if lane.jobs:
            lanes[lane.shape] = lane
        if lanes:
            self._lanes[lane.spec.key] = lanes


def fair_shares(demands: Sequence[int], total: int) -> list[int]:
    """Share `total` max-min fairly: small demands are met whole, and large ones share the rest.

    (Bertsekas and Gallager, Data Networks, section 6.5.2.)
    """
    if sum(demands) <= total:
        return list(demands)
    shares = [0] * len(demands)
    by_size = sorted(range(len(demands)), key=demands.__getitem__)
    for sharers, index in zip(range(len(demands), 0, -1), by_size, strict=True):
        shares[index] = min(demands[index], total // sharers)
        total -= shares[index]
    return shares
