"""Rate limits: how many requests a caller may send, counted in fixed windows that begin with its first request.

The library `limits` parses the rates. The counts are in SQLite: in memory or, for several processes, in a shared file.
The storage of `limits` itself cannot be shared between processes without a server.
"""

import logging
import math
import sqlite3
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from limits import RateLimitItem, parse_many

logger = logging.getLogger(__name__)

Rate = tuple[RateLimitItem, ...]
"""Limits that apply together, such as 20 a second and 600 a minute."""

FILE = "rates.sqlite"
_SWEEP = 4096
"""Number of requests between two deletions of expired windows."""
_BUSY_SECONDS = 0.05
"""Maximum seconds that the event loop waits while another process counts."""
_TABLE = "CREATE TABLE IF NOT EXISTS windows (caller TEXT PRIMARY KEY, count INTEGER, expires REAL) WITHOUT ROWID"
_READ = "SELECT count, expires FROM windows WHERE caller = ? AND expires > ?"
_WRITE = "REPLACE INTO windows VALUES (?, ?, ?)"


def read_rate(text: str) -> Rate:
    """Parse limits such as `600/minute` or `20/second;600/minute`.

    Raises:
        ValueError: the text is not a rate.
    """
    try:
        limits = tuple(parse_many(text))
    except ValueError:
        limits = ()
    if not limits or any(limit.amount < 1 for limit in limits):
        raise ValueError("a rate looks like 600/minute, or 20/second;600/minute")
    return limits


@dataclass(frozen=True)
class Allowance:
    """The requests that a caller has left after one was counted."""

    windows: tuple[tuple[RateLimitItem, int, int], ...]
    """Each limit with the requests left and the seconds until its window ends."""
    retry_after: int | None = None
    """Seconds to wait before the next try if this request exceeds a limit, else None."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the response headers of draft-ietf-httpapi-ratelimit-headers-10 and, for the limit with the fewest
        requests left, the three headers of the earlier drafts, which most clients read."""
        named = [(f'"{limit.amount}/{limit.get_expiry()}s"', limit, left, reset) for limit, left, reset in self.windows]
        policy = ", ".join(f"{name};q={limit.amount};w={limit.get_expiry()}" for name, limit, _, _ in named)
        state = ", ".join(f"{name};r={left};t={reset}" for name, _, left, reset in named)
        nearest, left, reset = min(self.windows, key=lambda window: (window[1], -window[2]))
        fields = {
            "ratelimit-policy": policy,
            "ratelimit": state,
            "ratelimit-limit": nearest.amount,
            "ratelimit-remaining": left,
            "ratelimit-reset": reset,
        }
        return [(name.encode(), str(value).encode()) for name, value in fields.items()]


class Rates:
    """Counts the requests of each caller against its rate."""

    def __init__(self, rate: Rate | None, folder: Path | None = None) -> None:
        """`rate` is for callers without a rate of their own; `folder` is shared by the processes of one server."""
        self._rate = rate
        self._path = ":memory:" if folder is None else str(folder / FILE)
        self._until_sweep = _SWEEP

    def take(self, caller: str, rate: Rate | None = None) -> Allowance | None:
        """Count one request of `caller` against `rate` or the server's rate, unless it exceeds a limit.

        A refused request counts in no window: a client that waits for `retry_after` is not refused again because of the
        requests that were refused meanwhile.

        Returns None if the caller has no limit, or if the request cannot be counted, which is then allowed.
        """
        limits, now = rate or self._rate, time.monotonic()  # a clock that nobody sets, and that processes share
        if limits is None:
            return None
        try:
            with self._database as database:  # commits, or rolls back and frees the lock
                database.execute("BEGIN IMMEDIATE")
                keys = [limit.key_for(caller) for limit in limits]
                rows = [database.execute(_READ, (key, now)).fetchone() for key in keys]
                counts = [row or (0, now + limit.get_expiry()) for limit, row in zip(limits, rows, strict=True)]
                full = [count >= limit.amount for limit, (count, _) in zip(limits, counts, strict=True)]
                if not any(full):
                    counts = [(count + 1, expires) for count, expires in counts]
                    database.executemany(_WRITE, [(key, *window) for key, window in zip(keys, counts, strict=True)])
                self._until_sweep -= 1
                if self._until_sweep == 0:
                    self._until_sweep = _SWEEP
                    database.execute("DELETE FROM windows WHERE expires <= ?", (now,))
        except sqlite3.Error as error:
            logger.warning("a request is not counted: %s", error)
            return None
        windows = tuple(
            (limit, max(0, limit.amount - count), max(1, math.ceil(expires - now)))
            for limit, (count, expires) in zip(limits, counts, strict=True)
        )
        waits = [reset for (_, _, reset), is_full in zip(windows, full, strict=True) if is_full]
        return Allowance(windows, max(waits, default=None))

    @cached_property
    def _database(self) -> sqlite3.Connection:
        """The database, opened for the first limited request: a full disk must not prevent the start."""
        database = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        # Counts need not survive a crash, but a full disk must not leave half a transaction.
        for statement in ("PRAGMA journal_mode = MEMORY", "PRAGMA synchronous = OFF", _TABLE):
            database.execute(statement)
        return database
