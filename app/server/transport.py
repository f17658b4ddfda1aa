"""The transport below uvicorn's protocol: the head of an answer leaves together with its body, and an answer that comes
while the client is still sending reaches it."""

import asyncio
from collections.abc import Callable
from typing import Any

_HEAD = b"HTTP/1.1 "
_INTERIM = b"HTTP/1.1 1"
"""100 Continue: the client waits for it, and nothing follows."""
_SMALL = 65_536
"""Bytes up to which copying is cheaper than a list of two pieces."""

_LEAST_TAKEN = 65_536
"""Bytes of an answer that a client takes in its time, or it does not read at all: one byte a second is no reading."""


class JoiningTransport:
    """A transport that keeps the head of an answer for what follows it in the same turn of the event loop."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, on_close: Callable[[], None]
    ) -> None:
        """`on_close` is called when it is to be closed, and chooses how: `finish` or `linger`."""
        self._transport, self._loop, self._head, self._on_close = transport, loop, b"", on_close
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info

    def write(self, data: bytes) -> None:
        """Write `data`, or keep it if it is a head."""
        head, self._head = self._head, b""
        if not head and data.startswith(_HEAD) and not data.startswith(_INTERIM):
            self._head = data
            self._loop.call_soon(self._flush)  # nothing may follow: to HEAD, for one
        elif len(data) <= _SMALL:
            self._transport.write(head + data)
        else:
            self._transport.writelines((head, data))

    def close(self) -> None:
        """Write what is kept, and close."""
        self._flush()
        if not self.is_closing():
            self._on_close()

    def finish(self) -> None:
        """Close when everything is written."""
        self._transport.close()

    def linger(self, seconds: float) -> None:
        """Say that nothing more comes, and close after so long, or when the client does.

        Closed at once, a connection on which something still arrives would be reset, and the answer lost with it.
        """
        self.is_closing = lambda: True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._loop.call_later(seconds, self._transport.close)

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self.is_closing():
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Reader:
    """Whether a client reads what is written to it: `on_stall` is called where it does not."""

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        on_stall: Callable[[], None],
    ) -> None:
        """It is to take some of an answer in every so many `seconds` that it is watched."""
        self._transport, self._loop, self._seconds, self._on_stall = transport, loop, seconds, on_stall
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0

    def watch(self) -> None:
        """From now on, until everything is written, or `relax` is called."""
        self._unread = self._transport.get_write_buffer_size()
        if self._timer is None and self._unread:
            self._timer = self._loop.call_later(self._seconds, self._check)

    def relax(self) -> None:
        """It has read enough."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer, before = None, self._unread
        self.watch()
        if self._unread and before - self._unread < _LEAST_TAKEN:
            self.relax()
            self._on_stall()
