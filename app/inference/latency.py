"""Latency of a graph by number of rows: a straight line fitted to measurements."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.maths.arrays import Arrays

RunRows = Callable[[NDArray[Any]], Arrays]
"""Runs a graph: rows `[N, ...]` to named outputs `[N, ...]`. It must be safe to call in any thread."""

WARM_UP_BATCH_SIZES = (1, 2, 8)
"""Batch sizes timed at warm-up, in rows."""
WARM_UP_REPETITIONS = 3
"""Repetitions per batch size; the minimum is kept."""
EFFICIENT_OVERHEAD = 0.1
"""Maximum share of a batch's time that is the fixed cost of the call, for the batch to be efficient."""
IDLE_OVERHEAD = 0.3
"""Maximum share of a batch's time that is the fixed cost of the call, for an idle slot to start the batch at once."""
THREAD_SECONDS = 0.0001
"""Minimum duration, in seconds, of a batch that is worth a thread while the event loop reads requests."""


@dataclass(frozen=True)
class Latency:
    """A graph's time for n rows: `base + per_row * n` seconds."""

    base: float
    per_row: float

    @classmethod
    def fit(cls, measured: dict[int, float]) -> "Latency":
        """Fit a line by least squares through seconds by number of rows, two or more.

        A noisy measurement may give too small a slope, so `per_row` is at least a quarter of the time per row of the
        largest batch.
        """
        per_row, base = np.polyfit(list(measured), list(measured.values()), 1)
        max_rows = max(measured)
        return cls(max(float(base), 1e-9), max(float(per_row), measured[max_rows] / max_rows / 4, 1e-9))

    @classmethod
    def measured(cls, run: RunRows, row: NDArray[Any]) -> "Latency":
        """Time `run` on this machine, on batches of copies of `row` `[1, ...]`."""
        seconds: dict[int, float] = {}
        for count in WARM_UP_BATCH_SIZES:
            rows = np.repeat(row, count, axis=0)
            for _ in range(WARM_UP_REPETITIONS):
                began = time.perf_counter()
                run(rows)
                seconds[count] = min(time.perf_counter() - began, seconds.get(count, math.inf))
        return cls.fit(seconds)

    def scaled(self, factor: float) -> "Latency":
        """The latency for rows that are `factor` times as large."""
        return Latency(self.base, self.per_row * factor)

    def seconds(self, rows: int) -> float:
        """Seconds that a batch of `rows` takes."""
        return self.base + self.per_row * rows

    def rows(self, seconds: float) -> int:
        """Rows that fit into `seconds`; at least 1."""
        return max(1, int((seconds - self.base) / self.per_row))

    @cached_property
    def efficient_rows(self) -> int:
        """Rows beyond which a larger batch is hardly more efficient: 1 for heavy graphs, dozens for light ones."""
        return self._rows_of_overhead(EFFICIENT_OVERHEAD)

    @cached_property
    def thread_rows(self) -> int:
        """Minimum rows that an idle slot starts at once, while the event loop still reads requests."""
        return max(self._rows_of_overhead(IDLE_OVERHEAD), self.rows(THREAD_SECONDS))

    def _rows_of_overhead(self, overhead: float) -> int:
        """Minimum rows for which the fixed cost is at most the share `overhead` of the batch's time."""
        return max(1, math.ceil(self.base / self.per_row * (1 - overhead) / overhead))
