"""Load generators: an open loop, which sends at a fixed rate, and a closed loop, which waits for each response.

Used by `bench.overload`. A closed loop slows down with the server that it measures, and so hides how long users would
wait. In the open loop each request has a due time, and its latency counts from then, even if it is sent later.
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
"""Seconds between two checks for due requests."""
_MAX_CONNECTIONS = 900
"""Maximum open connections, fewer than the server accepts; a request waits for a free one, and its latency counts."""
_MAX_IDLE = 2.0
"""Seconds after which an idle connection is not used again: the server closes it after 5."""
LOST = 0
"""Status of a request that got no response."""


@dataclass(slots=True)
class Outcome:
    """One request: its due time in seconds since the start, its latency in seconds from then, and its status."""

    due: float
    seconds: float
    status: int


@dataclass(frozen=True)
class Target:
    """A server's address, and the bytes of the request to send."""

    host: str
    port: int
    request: bytes


def http(method: str, path: str, body: bytes = b"", media_type: str = "application/json") -> bytes:
    """The bytes of an HTTP/1.1 request."""
    content = f"Content-Type: {media_type}\r\nContent-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{content}\r\n".encode() + body


class Connection(asyncio.Protocol):
    """A keep-alive connection that sends one request at a time and waits for the whole response."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[int] | None = None
        self.is_open, self.used = True, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """Send a request; the future gives the status of the response, or LOST."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        """Close the connection."""
        self.is_open = False
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        """Collect a part of the response."""
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
        """End the pending request, if any, as LOST."""
        self.is_open = False
        self._end(LOST)

    def _end(self, status: int) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(status)


class Arrivals:
    """Sends requests over as many connections as they need, and collects their outcomes."""

    def __init__(self, target: Target) -> None:
        self._target, self._idle = target, list[Connection]()
        self._places = asyncio.Semaphore(_MAX_CONNECTIONS)
        self._under_way = set[asyncio.Task[None]]()
        self.outcomes: list[Outcome] = []

    async def offer(self, rate: float, seconds: float, patience: float) -> list[Outcome]:
        """Open loop: `rate` requests per second for `seconds`; LOST if unanswered `patience` seconds later."""
        began, sent = time.perf_counter(), 0
        while (now := time.perf_counter() - began) < seconds:
            for sent in range(sent, int(now * rate) + 1):  # noqa: B020 (continues from the last value)
                self._start(self._ask(began, sent / rate))
            sent = int(now * rate) + 1
            await asyncio.sleep(_TICK)
        await self._finish(patience)
        return self.outcomes

    async def keep_asking(self, count: int, seconds: float, patience: float) -> list[Outcome]:
        """Closed loop: `count` clients, each of which sends its next request when the last one is answered."""
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
        """A recently used connection, or a new one: the server closes idle connections."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and time.perf_counter() - connection.used < _MAX_IDLE:
                return connection
            connection.close()
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(Connection, self._target.host, self._target.port))[1]


def offer(target: Target, rate: float, seconds: float, patience: float = 30) -> list[Outcome]:
    """Run an open loop until the last response."""
    return uvloop.run(Arrivals(target).offer(rate, seconds, patience))


def keep_asking(target: Target, count: int, seconds: float, patience: float = 30) -> list[Outcome]:
    """Run a closed loop until the last response."""
    return uvloop.run(Arrivals(target).keep_asking(count, seconds, patience))


def generators(count: int = 1) -> ProcessPoolExecutor:
    """Processes to run the loops in, so that they do not share an interpreter with each other."""
    return ProcessPoolExecutor(count, get_context("spawn"))
