"""Requests that come when they come: an open loop, which waits for no answer before it asks again.

A closed loop slows down with the server that it measures, and so hides how long a user would have waited. Here a
request has a time at which it is due, and its latency counts from then, whether it could be sent or not.
"""

import asyncio
import time
from collections.abc import Coroutine
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from typing import cast

import uvloop

_TICK = 0.002
"""Seconds between looks at what is due."""
_CONNECTIONS = 900
"""Connections at most, fewer than a server takes; who finds none free waits, and the time counts."""
_FRESH = 2.0
"""Seconds after which a connection is not used again: the server closes it after 5."""
LOST = 0
"""The status of a request that was neither answered nor refused."""


@dataclass(slots=True)
class Outcome:
    """One request: when it was due, in seconds since the first, how long it took from then, and its status."""

    due: float
    seconds: float
    status: int


@dataclass(frozen=True)
class Target:
    """Where a request goes, and its bytes as they go over the wire."""

    host: str
    port: int
    request: bytes


def http(method: str, path: str, body: bytes = b"", media_type: str = "application/json") -> bytes:
    """A request as it goes over the wire."""
    content = f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: bench\r\n{content}\r\n".encode() + body


class Connection(asyncio.Protocol):
    """A kept connection: one request at a time, and its status when the answer is whole."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[int] | None = None
        self.is_open, self.used = True, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send a request; its status comes, or LOST."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        """Let go of it."""
        self.is_open = False
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Part of an answer."""
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        lower = bytes(self._received[:head]).lower()
        length = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if len(self._received) >= head + 4 + length:
            self._received.clear()
            self.is_open &= b"connection: close" not in lower
            self._end(int(lower[9:12]))

    def connection_lost(self, _: Exception | None) -> None:
        """The server closed it, or we did."""
        self.is_open = False
        self._end(LOST)

    def _end(self, status: int) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(status)


class Arrivals:
    """Sends what is due over as many connections as that takes."""

    def __init__(self, target: Target) -> None:
        self._target, self._idle = target, list[Connection]()
        self._places = asyncio.Semaphore(_CONNECTIONS)
        self._under_way = set[asyncio.Task[None]]()
        self.outcomes: list[Outcome] = []

    async def offer(self, rate: float, seconds: float, patience: float) -> list[Outcome]:
        """`rate` requests a second for so many seconds; what has no answer `patience` seconds later is lost."""
        began, sent = time.perf_counter(), 0
        while (now := time.perf_counter() - began) < seconds:
            for sent in range(sent, int(now * rate) + 1):  # noqa: B020 (it goes on where it was)
                self._start(self._ask(began, sent / rate))
            sent = int(now * rate) + 1
            await asyncio.sleep(_TICK)
        await self._finish(patience)
        return self.outcomes

    async def keep_asking(self, count: int, seconds: float, patience: float) -> list[Outcome]:
        """A closed loop beside it: `count` clients, each of which asks once, and again as soon as it is answered."""
        began = time.perf_counter()

        async def client() -> None:
            await self._ask(began, time.perf_counter() - began)
            while (now := time.perf_counter() - began) < seconds:
                await self._ask(began, now)

        for _ in range(count):
            self._start(client())
        await asyncio.sleep(seconds)
        await self._finish(patience)
        return self.outcomes

    def _start(self, asking: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(asking)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _finish(self, patience: float) -> None:
        for timeout in (patience, None):
            if tasks := set(self._under_way):
                _, late = await asyncio.wait(tasks, timeout=timeout)
                for task in late:
                    task.cancel()

    async def _ask(self, began: float, due: float) -> None:
        status = LOST
        with suppress(OSError, asyncio.CancelledError):
            async with self._places:
                connection = await self._connection()
                status = await connection.ask(self._target.request)
                connection.used = time.perf_counter()
                self._idle.append(connection)
        self.outcomes.append(Outcome(due, time.perf_counter() - began - due, status))

    async def _connection(self) -> Connection:
        """One that was used a moment ago, or a new one: the server closes those that nobody uses."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and time.perf_counter() - connection.used < _FRESH:
                return connection
            connection.close()
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, self._target.host, self._target.port))[1]


def offer(target: Target, rate: float, seconds: float, patience: float = 30) -> list[Outcome]:
    """An open loop, from its beginning to the last answer."""
    return uvloop.run(Arrivals(target).offer(rate, seconds, patience))


def keep_asking(target: Target, count: int, seconds: float, patience: float = 30) -> list[Outcome]:
    """A closed loop, from its beginning to the last answer."""
    return uvloop.run(Arrivals(target).keep_asking(count, seconds, patience))


def generators(count: int = 1) -> ProcessPoolExecutor:
    """Processes to run them in, which share nothing with the one that starts them."""
    return ProcessPoolExecutor(count, get_context("spawn"))
