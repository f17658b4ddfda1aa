"""Where a request's time goes, and what that comes to over all of them. Stdlib only."""

import time
from dataclasses import dataclass
from typing import NamedTuple

GraphName = tuple[str, str]
"""A model's name, and encoder or decoder."""


class GraphRun(NamedTuple):
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
    """Where the time of one request went, and which model it asked.

    The request log makes it, the batcher adds to it.
    """

    queue: float = 0.0
    """Seconds until the first row of each graph run was taken, summed over the runs."""
    inference: float = 0.0
    """Seconds from then until the last row was done, summed over the runs."""
    model: str | None = None
    """Name of the model; None if the request named none or an unknown one."""
    version: int | None = None
    """Version of the model; None if `model` is None."""
    runs: list[GraphRun] | None = None
    """Each graph run, in the order in which they ended; None unless the request is traced."""


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
