"""Clients that keep count: what they asked, and what became of it."""

import http.client
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import httpx2

from tests.processes import PATIENCE

Ask = tuple[str, str, bytes | None]
"""Method, path and body."""
SAMPLE: Ask = ("GET", "/sample/npy?n=32", None)


@dataclass
class Load:
    """Threads that ask a server again and again, half of them over connections that they keep.

    A request was `sent` when all of it was; it ends in a status, or is `lost`. `refused` were let in by nobody.
    """

    client: httpx2.Client
    ask: Ask = SAMPLE
    statuses: Counter[int] = field(default_factory=Counter)
    sent: int = 0
    lost: list[Exception] = field(default_factory=list)
    refused: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _done: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def at_work(self, count: int = 8) -> Iterator[None]:
        """While it lasts, so many of each kind ask."""
        threads = [threading.Thread(target=kind) for kind in (self._keep, self._renew) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._done.set()
            for thread in threads:
                thread.join()

    @property
    def answered(self) -> int:
        """Requests that have a status."""
        return sum(self.statuses.values())

    def _keep(self) -> None:
        while not self._done.is_set():
            self._until_closed(lambda closes: closes)

    def _renew(self) -> None:
        while not self._done.is_set():
            self._until_closed(lambda _: True)

    def _until_closed(self, over: Callable[[bool], bool]) -> None:
        base = self.client.base_url
        connection = http.client.HTTPConnection(base.host, base.port, timeout=PATIENCE)
        try:
            connection.connect()
        except OSError:
            with self._lock:
                self.refused += 1
            self._done.wait(0.05)
            return
        while not self._done.is_set():
            if over(self._one(connection)):
                break
        connection.close()

    def _one(self, connection: http.client.HTTPConnection) -> bool:
        """Whether the server closes the connection after this request."""
        method, path, body = self.ask
        with self._lock:
            self.sent += 1
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            with self._lock:
                self.lost.append(error)
            return True
        with self._lock:
            self.statuses[answer.status] += 1
        return answer.will_close


def is_refused(client: httpx2.Client) -> bool:
    """Whether nobody lets one in."""
    with suppress(OSError), socket.create_connection((client.base_url.host, client.base_url.port), timeout=2):
        return False
    return True
