"""Accepting TLS connections, with a limit of handshakes in progress."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from socket import socket

logger = logging.getLogger(__name__)

MAX_HANDSHAKES = 64
"""Maximum TLS handshakes in progress; then no connection is accepted until one ends."""
CROWDED_SECONDS = 1.0
"""Maximum seconds of the oldest handshake while no connection is accepted."""
_WARNING_SECONDS = 60.0
"""Minimum seconds between two warnings."""


class Handshakes:
    """The TLS handshakes of a server, which accepts its connections here.

    The event loop's own server tells nobody of a connection before its handshake is complete: clients that open
    connections and send nothing would take every file descriptor.
    """

    def __init__(self, listeners: list[socket], start: Callable[[socket], Coroutine[None, None, None]]) -> None:
        """`start` runs the handshake of an accepted connection and gives the connection its protocol."""
        self._listeners, self._start = listeners, start
        self._loop = asyncio.get_running_loop()
        self._running: dict[asyncio.Task[None], float] = {}
        self._resumption: asyncio.TimerHandle | None = None
        self._next_warning = 0.0
        for listener in listeners:
            listener.setblocking(False)
        self.accept()

    @property
    def running(self) -> list[asyncio.Task[None]]:
        """The handshakes in progress."""
        return list(self._running)

    def accept(self) -> None:
        """Accept connections until too many handshakes are in progress."""
        for listener in self._listeners:
            self._loop.add_reader(listener, self._accept_one, listener)

    def close(self) -> None:
        """Accept no more connections; the handshakes in progress continue."""
        self._pause()
        self._listeners = []

    def _accept_one(self, listener: socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError):  # another worker has accepted it, or it is closed again
            return
        except OSError as error:  # no file descriptors are left
            self._warn("no connection can be accepted: %s", error.strerror)
            self._pause()
            self._resumption = self._loop.call_later(CROWDED_SECONDS, self.accept)
            return
        task = self._loop.create_task(self._run(connection))
        self._running[task] = self._loop.time()
        task.add_done_callback(self._end)
        if len(self._running) >= MAX_HANDSHAKES:
            self._warn("%s TLS handshakes at once: other clients wait, and the slowest are closed", MAX_HANDSHAKES)
            self._pause()
            self._limit_oldest()

    async def _run(self, connection: socket) -> None:
        with suppress(OSError):  # the client does not speak TLS, or is too slow, or is gone
            await self._start(connection)

    def _end(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if len(self._running) == MAX_HANDSHAKES - 1:
            self._pause()
            self.accept()

    def _pause(self) -> None:
        if self._resumption is not None:
            self._resumption.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener)

    def _limit_oldest(self) -> None:
        """End the oldest handshake when it has taken `CROWDED_SECONDS`, unless another one ends before."""
        task, began = next(iter(self._running.items()))
        self._resumption = self._loop.call_at(began + CROWDED_SECONDS, task.cancel)

    def _warn(self, message: str, *values: object) -> None:
        if self._loop.time() >= self._next_warning:
            self._next_warning = self._loop.time() + _WARNING_SECONDS
            logger.warning(message, *values)
