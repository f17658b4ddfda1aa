"""Admission: whether the queue has room for rows, by their number and by how long they would wait.

It counts the rows that wait and the rows that requests have reserved room for. It uses only numbers: no arrays, no
threads, no event loop.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.errors import InvalidInput, Overloaded
from app.inference.queue import LaneSpec

LATEST_BATCH_WEIGHT = 0.1
"""Weight of the latest batch in a moving average over batches."""
MAX_SLOWDOWN = 10.0
"""Maximum slowdown counted for one batch: a process that was suspended soon runs at its old speed again."""


@dataclass(eq=False)
class Reservation:
    """Room in the queue for `rows` of a lane, which a request is going to submit."""

    lane: LaneSpec
    rows: int
    caller: str


@dataclass(eq=False)
class _Load:
    """The sum of the rows of one key that wait or are reserved."""

    rows_of: dict[str, int] = field(default_factory=dict)
    """Rows of each caller, each counted by its cost."""

    cost: int = 0
    """Rows, each counted by its cost."""
    batches: float = 0.0
    """Number of batches of `max_batch_rows` that the rows make."""
    seconds: float = 0.0
    """Seconds that the rows occupy one slot."""

    def part_before(self, caller: str, cost: int) -> float:
        """Fraction of these rows that run before the next `cost` rows of a caller end: callers share each batch."""
        own = self.rows_of.get(caller, 0)
        callers = len(self.rows_of) + (not own)
        return min(1.0, (own + cost) * callers / self.cost)


class Admission:
    """Decides which rows are admitted to the queue of `slots` slots.

    At most `max_rows` may wait, each counted by its cost. Rows whose predicted wait exceeds `max_wait_seconds` are
    refused.
    """

    def __init__(self, slots: int, max_rows: int, max_wait_seconds: float = math.inf) -> None:
        self._slots, self.max_rows, self._max_wait_seconds = slots, max_rows, max_wait_seconds
        self._loads: dict[Hashable, _Load] = {}
        self._cost = 0
        self._slowdown = 1.0
        """Moving average of the time that batches take now, divided by the time measured at warm-up."""
        self.is_closed = False
        """Whether all rows are refused, because the server is stopping."""
        self.refused_rows = 0
        """Rows refused since the start."""

    def check(self, lane: LaneSpec, rows: int, caller: str = "") -> None:
        """Raise if there is no room now for `rows` of a lane, for a caller.

        Raises:
            InvalidInput: there never is room for that many rows.
            Overloaded: the queue is full, the rows would wait too long, or the server is stopping.
        """
        cost = rows * lane.cost
        if cost > self.max_rows:
            words = f"this needs {cost} rows of the queue at once, which holds {self.max_rows}: ask for less"
            raise InvalidInput(words)
        is_full = (
            self._is_full(lane.key, caller, cost)
            or self.predicted_wait(lane.key, caller, cost) > self._max_wait_seconds
        )
        if self.is_closed or is_full:
            self.refused_rows += rows
            raise Overloaded("the server is stopping" if self.is_closed else "the queue is full")

    def _is_full(self, key: Hashable, caller: str, cost: int) -> bool:
        """Whether there is no room for rows that count as `cost`.

        A model with less than an equal share of the rows finds room though others fill the queue, up to twice as many
        rows; a caller with less than an equal share does, up to three times as many.
        """
        total = self._cost + cost
        if total <= self.max_rows:
            return False
        of_caller = cost + sum(load.rows_of.get(caller, 0) for load in self._loads.values())
        callers = {caller}.union(*(load.rows_of for load in self._loads.values()))
        if of_caller <= self.max_rows // len(callers):
            return total > 3 * self.max_rows
        of_models: defaultdict[Hashable, int] = defaultdict(int, {_model(key): cost})
        for other, load in self._loads.items():
            of_models[_model(other)] += load.cost
        return of_models[_model(key)] > self.max_rows // len(of_models) or total > 2 * self.max_rows

    def admit(self, lane: LaneSpec, rows: int, caller: str = "", reservation: Reservation | None = None) -> None:
        """Add `rows` of a lane to the queue; rows of a request with a reservation are always admitted.

        Only rows of the reservation's own key use it up: rows of other keys that the request runs before do not.

        Raises:
            InvalidInput, Overloaded: as `check` does.
        """
        if reservation is None or self.is_closed:
            self.check(lane, rows, caller)
        elif reservation.lane.key == lane.key:
            self._release(reservation, rows)
        self._add(lane, rows, caller)

    def leave(self, lane: LaneSpec, rows: int, caller: str = "") -> None:
        """Take `rows` of a lane out of the queue: they were taken into a batch, or dropped."""
        self._add(lane, -rows, caller)

    @contextmanager
    def reserve(self, lane: LaneSpec, rows: int, caller: str = "") -> Iterator[Reservation]:
        """Reserve room for `rows` of a lane until they are admitted with the reservation, or the block ends.

        So a request that runs several graphs is refused before the first graph, or not at all.

        Raises:
            InvalidInput, Overloaded: as `check` does.
        """
        self.check(lane, rows, caller)
        self._add(lane, rows, caller)
        reservation = Reservation(lane, rows, caller)
        try:
            yield reservation
        finally:
            self._release(reservation, reservation.rows)

    def _release(self, reservation: Reservation, rows: int) -> None:
        """Release the room for `rows`, at most what is left of the reservation."""
        if rows := min(rows, reservation.rows):
            reservation.rows -= rows
            self._add(reservation.lane, -rows, reservation.caller)

    def observe(self, slowdown: float) -> None:
        """Record that a batch took `slowdown` times as long as its graph's latency predicts."""
        self._slowdown += LATEST_BATCH_WEIGHT * (min(slowdown, MAX_SLOWDOWN) - self._slowdown)

    def predicted_wait(self, key: Hashable, caller: str = "", cost: int = 1) -> float:
        """Predicted wait, in seconds, of rows of `key` that arrive now, from `caller`, and count as `cost`.

        The key's rows of any shape run first that are before these. Keys take turns, so each other key runs as many
        batches meanwhile as this key, or all that it has.
        """
        own = self._loads.get(key)
        if own is None:
            return 0.0
        part = own.part_before(caller, cost)
        seconds = part * own.seconds
        if len(self._loads) > 1:
            seconds = sum(load.seconds * min(1.0, part * own.batches / load.batches) for load in self._loads.values())
        return self._slowdown * seconds / self._slots

    def _add(self, lane: LaneSpec, rows: int, caller: str) -> None:
        """Count `rows` more of a lane and a caller, or fewer if negative."""
        cost = rows * lane.cost
        self._cost += cost
        load = self._loads.get(lane.key)
        if load is None:
            load = self._loads[lane.key] = _Load()
        load.cost += cost
        if rows_of_caller := load.rows_of.get(caller, 0) + cost:
            load.rows_of[caller] = rows_of_caller
        else:
            load.rows_of.pop(caller, None)
        load.batches += rows / lane.max_batch_rows
        load.seconds += rows * lane.row_seconds
        if not load.cost:
            del self._loads[lane.key]


def _model(key: Hashable) -> Hashable:
    """The model of a key, `(model, lane)`."""
    return key[0] if isinstance(key, tuple) else key
