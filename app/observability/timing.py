"""Where a request's time goes, and what that comes to over all of them. Stdlib only."""

import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import NamedTuple

GraphName = tuple[str, str]
"""A model's name, and encoder or decoder."""


class Run(NamedTuple):
    """What became of a request's rows in one graph; times are of `time.monotonic()`."""

    graph: GraphName
    rows: int
    batch_rows: int
    """Rows of the largest batch that some of them were in; 0 if none ran."""
    submitted: float
    began: float
    """When the first of them was taken; 0 if none was."""
    ended: float


@dataclass(slots=True)
class Timing:
    """Where the time of a request's rows went, in seconds, added up over the graphs that it runs; its names, and
    which model it asked."""

    queue: float = 0.0
    """Until the first of them was taken,"""
    inference: float = 0.0
    """and from then until the last was done."""
    request_id: str | None = None
    trace_id: str | None = None
    """W3C's, 32 hexadecimal digits; None where it is part of no trace."""
    model: str | None = None
    """None where it asked none, or one that there is not."""
    version: int | None = None
    runs: list[Run] | None = None
    """Each of them, where somebody wants to know: where the request is traced."""


@dataclass(slots=True)
class Statistics:
    """What became of the requests of one graph since it was loaded; times in seconds, added up."""

    graph: GraphName | None = None
    """What it is called, where somebody is told of its batches."""
    requests: int = 0
    """Requests that succeeded,"""
    rows: int = 0
    """their rows,"""
    queue: float = 0.0
    """the time until the first row of each was taken,"""
    inference: float = 0.0
    """and from then until the last was done."""
    batches: int = 0
    """Batches that were run, of one or more requests' rows."""
    failures: int = 0
    """Requests that failed, were refused or ran out of time,"""
    failing: float = 0.0
    """and the time until they did."""
    last: float = 0.0
    """When the last request succeeded, in seconds since 1970; 0 if none did."""

    def succeeded(self, rows: int, queue: float, inference: float) -> None:
        """Count a request that did."""
        self.requests += 1
        self.rows += rows
        self.queue += queue
        self.inference += inference
        self.last = time.time()

    def failed(self, seconds: float) -> None:
        """Count a request that did, after so long."""
        self.failures += 1
        self.failing += seconds


_current: ContextVar[Timing | None] = ContextVar("timing", default=None)


def timed() -> Timing:
    """A new timing, to which is added from now on what the rows of the request in this context wait and take."""
    timing = Timing()
    _current.set(timing)
    return timing


def current() -> Timing | None:
    """The timing of the request in this context; None outside of one."""
    return _current.get()


def asks(model: str, version: int) -> None:
    """The request in this context, if there is one, asks this model."""
    if (timing := _current.get()) is not None:
        timing.model, timing.version = model, version
