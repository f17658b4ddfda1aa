"""Who sent a request, and the time that it spends in the queue and in inference; and the times of each graph."""

import time
from dataclasses import dataclass
from typing import NamedTuple

GraphName = tuple[str, str]
"""A model's name, and encoder or decoder."""


class GraphRun(NamedTuple):
    """The rows of one request in one graph. Times are seconds of `time.monotonic()`."""

    graph: GraphName
    rows: int
    batch_rows: int
    """Rows of the largest batch that contained some of these rows; 0 if none ran."""
    submitted: float
    """When the rows entered the queue."""
    began: float
    """When the first row was taken from the queue; 0 if none was."""
    ended: float
    """When the last row was done or dropped."""


@dataclass(slots=True)
class Timing:
    """The times of one request, its model and its caller.

    The request log creates it, and the batcher adds to it.
    """

    caller: str = ""
    """The name of the request's key or, without a key, the address that it came from."""
    queue: float = 0.0
    """Seconds until the first row of each graph run was taken, summed over the runs."""
    inference: float = 0.0
    """Seconds from the first row taken until the last row was done, summed over the graph runs."""
    model: str | None = None
    """Name of the model; None if the request named none or an unknown one."""
    version: int | None = None
    """Version of the model; None if `model` is None."""
    runs: list[GraphRun] | None = None
    """Each graph run, in the order in which they ended; None unless the request is traced."""


@dataclass(slots=True)
class GraphStatistics:
    """Counts and summed times of the requests of one graph since it was loaded."""

    graph: GraphName = ("", "")
    requests: int = 0
    """Requests that succeeded."""
    rows: int = 0
    """Rows of the requests that succeeded."""
    queue: float = 0.0
    """Seconds in the queue, until the first row was taken, of the requests that succeeded."""
    inference: float = 0.0
    """Seconds from the first row taken until the last row was done, of the requests that succeeded."""
    batches: int = 0
    """Batches that ran, of rows of one or more requests."""
    failures: int = 0
    """Requests that failed, were refused or ran out of time."""
    failing: float = 0.0
    """Seconds from the start of the failed requests until they failed."""
    last: float = 0.0
    """When the last request succeeded, in seconds since 1970; 0 if none did."""

    def succeeded(self, rows: int, queue: float, inference: float) -> None:
        self.requests += 1
        self.rows += rows
        self.queue += queue
        self.inference += inference
        self.last = time.time()

    def failed(self, seconds: float) -> None:
        """Count a request that failed after `seconds`."""
        self.failures += 1
        self.failing += seconds
