"""uvicorn's HTTP protocol, but for three things: the head of an answer leaves together with its body, a server that
stops loses no request, and a client that offers HTTP/2 is answered in HTTP/1.1.

uvicorn writes head and body one after the other. On a connection that has nothing to wait for, that is two system
calls, two packets, and a client that is woken twice. And when it stops, it closes every connection that is not being
answered at once, with requests that are on their way to it (https://github.com/Kludex/uvicorn/issues/2757).
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.problems import problem
from app.errors import BadRequest

_HEAD = b"HTTP/1.1 "
_INTERIM = b"HTTP/1.1 1"
"""100 Continue: the client waits for it, and nothing follows."""
_SMALL = 65_536
"""Bytes up to which copying is cheaper than a list of two pieces."""


class JoiningTransport:
    """A transport that keeps the head of an answer for what follows it in the same turn of the event loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._head = transport, loop, b""
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
        self._transport.close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


_FAREWELL_SECONDS = 0.5
"""How long a stopping server waits for what may be on its way: a client that has connected is about to ask."""
_OFFER, _HIDDEN = b"\r\nUpgrade: h2c\r\n", b"\r\nUnused: h2c\r\n"

_END_OF_HEAD = b"\r\n\r\n"

_NO_HTTP = bytes(problem(BadRequest, "not an HTTP/1.1 request").body)


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 over a transport that joins heads to bodies; what is no HTTP gets a problem document, too.

    Once the server stops, each connection answers one more request, if one comes, and says that it is the last.
    """

    is_stopping = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(cast(asyncio.Transport, JoiningTransport(transport, self.loop)))
        if (server := self.app_state.get("server")) is not None:
            server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        super().connection_lost(exc)
        if (server := self.app_state.get("server")) is not None:
            server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came, without an offer of HTTP/2, which Java's own client makes with every request: the parser
        would not read the request's body."""
        if _OFFER in data and (self.cycle is None or not self.cycle.more_body):
            head, end, rest = data.partition(_END_OF_HEAD)
            data = (head + end[:2]).replace(_OFFER, _HIDDEN) + end[2:] + rest
        super().data_received(data)

    def shutdown(self) -> None:
        """The server stops: close when what is being answered is, or what may come in a moment."""
        self.is_stopping = True
        if self._is_idle:
            self.loop.call_later(_FAREWELL_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

    def on_headers_complete(self) -> None:
        """Begin to answer a request."""
        super().on_headers_complete()
        if self.is_stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_if_idle(self) -> None:
        if self._is_idle:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser does not understand, and close; `msg` is uvicorn's own text."""
        head = (
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n" % len(_NO_HTTP)
        )
        self.transport.write(head + _NO_HTTP)
        self.transport.close()
