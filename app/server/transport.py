"""The transport below uvicorn's protocol: closes gently, detects stalls."""

import asyncio
from collections.abc import Callable

_FLUSH_SECONDS = 0.1
"""Seconds to send what is written, when the client may never close its side of TLS."""
_CLOSE_SECONDS = 30.0
"""Seconds that a client of TLS has to close its side when everything is written."""
_MIN_READ_BYTES = 65_536
"""Minimum bytes that a client must read in the time limit; otherwise it counts as stalled."""


class GentleTransport:
    """A transport whose `close` lets the protocol decide how to close."""

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, on_close: Callable[[], None]
    ) -> None:
        """`on_close` is called by `close` and must call `finish` or `linger`."""
        self._transport, self._loop, self._on_close = transport, loop, on_close
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading
        self.write, self.writelines = transport.write, transport.writelines
        self.abort = transport.abort

    def close(self) -> None:
        """Close, unless that has begun."""
        if not self.is_closing():
            self._on_close()

    def finish(self) -> None:
        """Close when everything is written and, over TLS, when the client has closed its side or has had the time."""
        self._transport.close()
        if self.get_extra_info("sslcontext") is not None:
            self._loop.call_later(_CLOSE_SECONDS, self._abort_written)

    def _abort_written(self) -> None:
        """Abort when everything is written; the event loop's own limit would cut off a client that reads slowly."""
        if self.has_unsent:
            self._loop.call_later(_CLOSE_SECONDS, self._abort_written)
        else:
            self._transport.abort()

    def finish_soon(self) -> None:
        """Close when everything is written, without waiting until a client of TLS closes its side."""
        self._transport.close()
        self._loop.call_later(_FLUSH_SECONDS, self._transport.abort)

    @property
    def has_unsent(self) -> bool:
        """Whether a part of a response is not yet sent."""
        return self._transport.get_write_buffer_size() > 0

    def linger(self, seconds: float) -> None:
        """Close the sending side now, and the connection when the client closes it or after `seconds`.

        The kernel resets a connection that is closed while data arrives, and the client would lose the response.
        """
        self.is_closing = lambda: True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._loop.call_later(seconds, self.finish)


class StallDetector:
    """Calls `on_stall` if the client reads less than 64 KiB of the write buffer in `seconds`."""

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        seconds: float,
        on_stall: Callable[[], None],
    ) -> None:
        self._transport, self._loop, self._seconds, self._on_stall = transport, loop, seconds, on_stall
        self._timer: asyncio.TimerHandle | None = None
        self._buffered = 0

    def start(self) -> None:
        """Watch until the write buffer is empty or `stop` is called."""
        self._buffered = self._transport.get_write_buffer_size()
        if self._timer is None and self._buffered:
            self._timer = self._loop.call_later(self._seconds, self._check)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        self._timer, before = None, self._buffered
        self.start()
        if self._buffered and before - self._buffered < _MIN_READ_BYTES:
            self.stop()
            self._on_stall()
