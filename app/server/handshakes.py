"""Accepting TLS connections, with limits of silent connections and of handshakes in progress."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from socket import socket

logger = logging.getLogger(__name__)

Task = asyncio.Task[None]

MAX_SILENT = 256
"""Maximum TLS connections that have sent nothing yet."""
MAX_HANDSHAKES = 256
"""Maximum TLS handshakes in progress, of clients that have sent something."""
_ADDRESS_SHARE = 4
"""If one address has more than this part (1/4) of the places, its own oldest connection is closed for its next one."""
_ACCEPTED_AT_ONCE = 64
"""Maximum connections that are accepted in one turn of the event loop."""
_PAUSE_SECONDS = 1.0
"""Seconds without accepting when no file descriptor is left."""
_WARNING_SECONDS = 60.0
"""Minimum seconds between two warnings."""


class Handshakes:
    """The TLS handshakes of a server, which accepts its connections here.

    The event loop's own server tells nobody of a connection before its handshake is complete: clients that open
    connections and send nothing would take every file descriptor. Here the oldest of them is closed for a new one, so
    that no other client waits. A client that speaks TLS sends its first bytes together with the end of the TCP
    handshake, and is silent for no time.
    """

    def __init__(
        self,
        listeners: list[socket],
        start: Callable[[socket], Coroutine[None, None, None]],
        *,
        seconds: float,
        address: Callable[[tuple[str, int]], str],
    ) -> None:
        """`start` runs the handshake of an accepted connection and gives the connection its protocol.

        A connection that has sent nothing after `seconds` is closed. `address` gives the address under which a client
        is counted, which is empty if many clients share it.
        """
        self._listeners, self._start, self._seconds, self._address = listeners, start, seconds, address
        self._loop = asyncio.get_running_loop()
        self._silent, self._speaking = _Unfinished(MAX_SILENT), _Unfinished(MAX_HANDSHAKES)
        self._resumption: asyncio.TimerHandle | None = None
        self._next_warning = 0.0
        for listener in listeners:
            listener.setblocking(False)
        self._accept()

    @property
    def running(self) -> list[Task]:
        """The tasks of all connections whose handshake has not ended."""
        return [*self._silent.members, *self._speaking.members]

    def close(self) -> None:
        """Accept no more connections; the handshakes in progress continue."""
        self._pause()
        self._listeners = []

    def _accept(self) -> None:
        for listener in self._listeners:
            self._loop.add_reader(listener, self._accept_some, listener)

    def _pause(self) -> None:
        if self._resumption is not None:
            self._resumption.cancel()
        for listener in self._listeners:
            self._loop.remove_reader(listener)

    def _accept_some(self, listener: socket) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, (host, port, *_) = listener.accept()
            except BlockingIOError:  # none is left, or another worker has accepted it
                return
            except ConnectionError:  # it is closed again
                continue
            except OSError as error:  # no file descriptors are left
                self._warn("no connection can be accepted: %s", error.strerror)
                self._pause()
                self._resumption = self._loop.call_later(_PAUSE_SECONDS, self._accept)
                return
            connection.setblocking(False)
            self._admit(connection, self._address((host, port)))

    def _admit(self, connection: socket, address: str) -> None:
        task = self._loop.create_task(self._run(connection, address))
        task.add_done_callback(self._end)
        self._add(self._silent, task, address)

    async def _run(self, connection: socket, address: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        with suppress(OSError):  # the client does not speak TLS, or is too slow, or is gone
            await self._first_bytes(connection)
            self._silent.discard(task)
            self._add(self._speaking, task, address)
            await self._start(connection)

    async def _first_bytes(self, connection: socket) -> None:
        """Wait until the client has sent something or has gone; close the connection if that takes too long."""
        arrival = self._loop.create_future()
        self._loop.add_reader(connection, self._resolve, arrival)
        try:
            async with asyncio.timeout(self._seconds):
                await arrival
        except BaseException:
            self._loop.remove_reader(connection)
            connection.close()
            raise
        self._loop.remove_reader(connection)

    @staticmethod
    def _resolve(arrival: asyncio.Future[None]) -> None:
        if not arrival.done():
            arrival.set_result(None)

    def _add(self, group: "_Unfinished", task: Task, address: str) -> None:
        oldest = group.add(task, address)
        if oldest is not None:
            self._warn("%s silent or unfinished TLS handshakes at once: the oldest are closed", group.limit)
            oldest.cancel()

    def _end(self, task: Task) -> None:
        self._silent.discard(task)
        self._speaking.discard(task)

    def _warn(self, message: str, *values: object) -> None:
        if self._loop.time() >= self._next_warning:
            self._next_warning = self._loop.time() + _WARNING_SECONDS
            logger.warning(message, *values)


class _Unfinished:
    """Tasks that share a limit, in the order in which they came, with the addresses of their clients."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.members: dict[Task, str] = {}

    def add(self, task: Task, address: str) -> Task | None:
        """Add a task; return the one that makes room for it, if there are too many.

        It is the oldest of the task's own address if that has more than its share, and otherwise the oldest of all.
        """
        oldest = None
        if len(self.members) >= self.limit:
            own = [member for member, other in self.members.items() if other == address] if address else []
            oldest = own[0] if len(own) > self.limit // _ADDRESS_SHARE else next(iter(self.members))
            del self.members[oldest]
        self.members[task] = address
        return oldest

    def discard(self, task: Task) -> None:
        self.members.pop(task, None)
