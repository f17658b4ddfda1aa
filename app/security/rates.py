"""Rates: how many requests a caller may send in a time, counted in fixed windows, by the `limits` library.

A window begins with a caller's first request. The counts lie in SQLite: in memory, or for several processes in a file
that they share; the library's own storage in memory is one process's.
"""

import logging
import math
import sqlite3
import time
from dataclasses import dataclass
from functools import cached_property, lru_cache
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from limits import RateLimitItem, parse_many
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

logger = logging.getLogger(__name__)

Rate = tuple[RateLimitItem, ...]
"""Limits that hold together, such as 20 a second and 600 a minute."""

FILE = "rates.sqlite"
_SWEEP = 4096
"""Requests after which windows that are over are forgotten."""
_BUSY_SECONDS = 0.05
"""Longest time that the event loop may wait for another process's count."""
_COUNT = """INSERT INTO windows VALUES (?1, ?2, ?3) ON CONFLICT (caller) DO UPDATE SET
    count = iif(expires <= ?4, 0, count) + ?2, expires = iif(expires <= ?4, ?3, expires) RETURNING count"""


def read_rate(text: str) -> Rate:
    """Limits such as `600/minute` or `20/second;600/minute`.

    Raises:
        ValueError: it is none.
    """
    try:
        items = tuple(parse_many(text))
    except ValueError:
        items = ()
    if not items or any(item.amount < 1 for item in items):
        raise ValueError("a rate is such as 600/minute, or 20/second;600/minute")
    return items


@dataclass(frozen=True)
class Allowance:
    """What a caller has left."""

    windows: tuple[tuple[RateLimitItem, int, int], ...]
    """Of each limit: itself, requests left, and seconds until they are all there again."""
    refused: int | None = None
    """Seconds to wait before another try, where the request is one too many."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Of the answer: `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-10, and the three
        fields of its earlier versions, which most clients read, of the limit that is nearest."""
        named = [(f'"{item.amount}/{item.get_expiry()}s"', item, left, reset) for item, left, reset in self.windows]
        policy = ", ".join(f"{name};q={item.amount};w={item.get_expiry()}" for name, item, _, _ in named)
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
    """The rates of a server's callers."""

    def __init__(self, rate: Rate | None, folder: Path | None = None) -> None:
        """`rate` is that of callers who have none of their own; `folder` is shared by all processes of the server, if
        there are several."""
        self._rate = rate
        self._path = ":memory:" if folder is None else str(folder / FILE)

    def __bool__(self) -> bool:
        """Whether callers have one who have none of their own."""
        return self._rate is not None

    def take(self, caller: str, rate: Rate | None = None) -> Allowance | None:
        """Count one request of a caller; None where it has no limit, or where it cannot be counted: a rate is no
        reason to answer nobody."""
        items = rate or self._rate
        if items is None:
            return None
        try:
            within = [self._limiter.hit(item, caller) for item in items]
            windows = tuple((item, *self._left(item, caller)) for item in items)
        except sqlite3.Error as error:
            logger.warning("a request is not counted: %s", error)
            return None
        waits = [reset for is_within, (_, _, reset) in zip(within, windows, strict=True) if not is_within]
        return Allowance(windows, max(waits, default=None))

    @cached_property
    def _limiter(self) -> FixedWindowRateLimiter:
        """There from the first request that has a rate: a full disk is no reason not to start."""
        return FixedWindowRateLimiter(_Windows(self._path))

    def _left(self, item: RateLimitItem, caller: str) -> tuple[int, int]:
        stats = self._limiter.get_window_stats(item, caller)
        return stats.remaining, max(1, math.ceil(stats.reset_time - time.time()))


@lru_cache(4096)
def network(host: str) -> str:
    """Who is counted as one without a key: an address, or of IPv6 the /64 that a caller has to itself."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or f"{IPv6Address(int(address) >> 64 << 64)}/64")
    return str(address)


class _Windows(Storage):
    """Counts in SQLite, as the library wants them."""

    STORAGE_SCHEME = None

    def __init__(self, path: str) -> None:
        super().__init__()
        self._database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        for statement in (
            "PRAGMA journal_mode = OFF",  # counts need not outlive a crash
            "PRAGMA synchronous = OFF",
            "CREATE TABLE IF NOT EXISTS windows (caller TEXT PRIMARY KEY, count INTEGER, expires REAL) WITHOUT ROWID",
        ):
            self._database.execute(statement)
        self._until_sweep = _SWEEP

    @property
    def base_exceptions(self) -> type[Exception]:
        return sqlite3.Error

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now = time.time()
        self._until_sweep -= 1
        if self._until_sweep == 0:
            self._until_sweep = _SWEEP
            self._database.execute("DELETE FROM windows WHERE expires <= ?", (now,))
        return int(self._database.execute(_COUNT, (key, amount, now + expiry, now)).fetchone()[0])

    def get(self, key: str) -> int:
        return int(self._window(key)[0])

    def get_expiry(self, key: str) -> float:
        return self._window(key)[1]

    def check(self) -> bool:
        return bool(self._database.execute("SELECT 1").fetchone())

    def reset(self) -> int:
        return self._database.execute("DELETE FROM windows").rowcount

    def clear(self, key: str) -> None:
        self._database.execute("DELETE FROM windows WHERE caller = ?", (key,))

    def _window(self, key: str) -> tuple[int, float]:
        """The count, and when it begins anew; of a window that is over, or was never, nothing and now."""
        now = time.time()
        found = self._database.execute("SELECT count, expires FROM windows WHERE caller = ?", (key,)).fetchone()
        return found if found and found[1] > now else (0, now)
