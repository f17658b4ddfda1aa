"""uvicorn's HTTP protocol, but for this: connections are held to limits of number, size and time, the head of an answer
leaves together with its body, a server that stops loses no request, and a client that offers HTTP/2, or any other
protocol, is answered in HTTP/1.1.

uvicorn writes head and body one after the other. On a connection that has nothing to wait for, that is two system
calls, two packets, and a client that is woken twice. And when it stops, it closes every connection that is not being
answered at once, with requests that are on their way to it (https://github.com/Kludex/uvicorn/issues/2757). It bounds
neither headers nor the time that a request may take to arrive.
"""

import asyncio
from collections.abc import Hashable
from functools import lru_cache
from http import HTTPStatus
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.api.routing.problems import problem
from app.api.routing.state import Limits, State
from app.errors import BadRequest, BodyTooLarge, HeadersTooLarge, Overloaded, RequestTimeout, VaeError
from app.server.offers import without_offers
from app.server.transport import JoiningTransport, Reader
from app.settings import Settings

_FAREWELL_SECONDS = 0.5
"""How long a stopping server waits for what may be on its way: a client that has connected is about to ask."""
_LINGER_SECONDS = 2.0
"""How long a client that is refused is heard out, so that it comes to read why."""
_MOST_THROWN_AWAY = 2**27
"""Bytes that it may still send: many clients read nothing before they have sent everything."""
_MOST_LINGERING = 64
"""Connections beyond the limit that are; a flood of them is cut off."""
_MOST_PIPELINED = 64
"""Requests of one connection that wait for their turn: more than the best of clients send ahead."""
_END_OF_HEAD = b"\r\n\r\n"

Refusal = tuple[type[VaeError], str, str]
"""A problem, its detail, and the reason that it is counted by."""

_DEFAULTS = Settings.model_construct()
"""The limits of an application whose lifespan gives none."""


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 within limits; what is no HTTP, or breaks them, gets a problem document, is counted, and ends the
    connection.

    There is no timer where a request arrives whole and its answer is read. Once the server stops, each connection
    answers one more request, if one comes, and says that it is the last.
    """

    is_stopping = False
    transport: JoiningTransport  # type: ignore[assignment]
    _limits: Limits
    _is_receiving = False
    """Whether a request has begun to arrive, and not ended,"""
    _is_in_head = False
    """and whether that is still its head."""
    _is_deaf = False
    """Whether nothing is listened to any more: the connection ends when what is being answered is."""
    _unheard = 0
    """Bytes that came since the last head or piece of a body ended, or more: the size of an unfinished head."""
    _unread = 0
    """Bytes of a body that came when its request was answered already."""
    _broken: Refusal = BadRequest, "not an HTTP/1.1 request", BadRequest.slug
    """What is wrong where the parser stops."""
    _receiving: asyncio.TimerHandle | None = None
    """Runs while a request is to arrive."""
    _reader: Reader

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection, or refuse it where there are too many."""
        self._limits = _DEFAULTS if self._server is None else self._server.limits
        self._reader = Reader(transport, self.loop, self._limits.send_seconds, self._give_up_reader)
        joining = JoiningTransport(transport, self.loop, self._close)
        super().connection_made(cast(asyncio.Transport, joining))
        if self._server is not None:
            self._server.connections.add(self)
        if len(self.connections) > self._limits.max_connections:
            self._refuse(Overloaded, "too many connections", "too-many-connections")
        else:
            self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection, and what waits for it."""
        self._stop_waiting_for_request()
        self._reader.relax()
        super().connection_lost(exc)
        if self._server is not None:
            self._server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came, without an offer of another protocol: Java's own client makes one with every request."""
        if self._is_deaf:
            self._throw_away(data)
            return
        if not self._is_in_body:
            data = without_offers(data)
        self._unheard += len(data)
        super().data_received(data)
        if self._unheard > self._limits.max_header_bytes:
            self._refuse(*self._too_large())
        elif self._receiving is None and (self._is_receiving or self._is_idle):
            self._wait_for_request()

    def on_message_begin(self) -> None:
        """A request begins to arrive."""
        self._is_receiving = self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin to answer a request."""
        if self._unheard > self._limits.max_header_bytes:  # with what came before it, or behind it
            self._check_head()
        if self.parser.should_upgrade():  # an offer that was not seen: what is its body would be taken for a request
            self._stop_parsing(BadRequest, "an offer of another protocol", BadRequest.slug)
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):  # RFC 9112, section 3.2
            self._stop_parsing(BadRequest, "a request has one Host header", BadRequest.slug)
        if len(self.pipeline) >= _MOST_PIPELINED:
            self._stop_parsing(Overloaded, "too many requests sent ahead", "too-many-pipelined")
        super().on_headers_complete()
        self.headers = []  # for trailers, which are no headers of the request: they could bring another key or address
        self._is_in_head, self._unheard, self._unread = False, 0, 0
        if self.is_stopping and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A piece of a body has come."""
        self._unheard = 0
        super().on_body(body)
        if self.cycle.response_complete:
            self._leave_unread(len(body))

    def on_message_complete(self) -> None:
        """A request has arrived whole."""
        self._is_receiving, self._unheard = False, 0
        self._stop_waiting_for_request()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """The client is slower than the answer: see to it that it reads at all."""
        super().pause_writing()
        self._reader.watch()

    def resume_writing(self) -> None:
        """The client has read nearly everything."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._reader.relax()

    def shutdown(self) -> None:
        """The server stops: close when what is being answered is, or what may come in a moment."""
        self.is_stopping = True
        if self._is_idle:
            self.loop.call_later(_FAREWELL_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser stopped at; `msg` is uvicorn's own text."""
        self._refuse(*self._broken)

    @property
    def _server(self) -> State | None:
        return self.app_state.get("server")

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    @property
    def _is_in_body(self) -> bool:
        return self._is_receiving and not self._is_in_head

    def _close_if_idle(self) -> None:
        if self._is_idle:
            self.transport.close()

    def _close(self) -> None:
        """How the transport closes: a client that is still sending is heard out."""
        flooded = len(self.connections) > self._limits.max_connections + _MOST_LINGERING
        if (self._is_receiving or self._is_deaf) and not flooded:
            self._is_deaf = True
            self.flow.resume_reading()
            self.transport.linger(_LINGER_SECONDS)
        else:
            self.transport.finish()
        self._reader.watch()

    def _throw_away(self, data: bytes) -> None:
        self._unheard += len(data)
        if self._unheard > _MOST_THROWN_AWAY and self.transport.is_closing():
            self.transport.finish()

    def _leave_unread(self, size: int) -> None:
        before, self._unread = self._unread, self._unread + size
        if before <= _MOST_THROWN_AWAY < self._unread:
            self._count(BodyTooLarge.slug)
            self.transport.finish()

    def _wait_for_request(self) -> None:
        self._receiving = self.loop.call_later(self._limits.receive_seconds, self._check_request)

    def _stop_waiting_for_request(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None

    def _check_request(self) -> None:
        """The time to receive a request is over; it does not run while the server itself does not read."""
        if self.flow.read_paused or self.pipeline:
            self._wait_for_request()
        else:
            detail = f"a request must arrive within {self._limits.receive_seconds:g} seconds"
            self._refuse(RequestTimeout, detail, RequestTimeout.slug)

    def _give_up_reader(self) -> None:
        self._count("answer-not-read")
        self.transport.abort()

    def _too_large(self) -> Refusal:
        return HeadersTooLarge, f"at most {self._limits.max_header_bytes} bytes", HeadersTooLarge.slug

    def _check_head(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
        if size > self._limits.max_header_bytes:
            self._stop_parsing(*self._too_large())

    def _stop_parsing(self, error: type[VaeError], detail: str, reason: str) -> None:
        """To be called by the parser: uvicorn has it send a 400 then."""
        self._broken = error, detail, reason
        raise error(detail)

    def _refuse(self, error: type[VaeError], detail: str, reason: str) -> None:
        """Answer with a problem what cannot go on, count it, and close; what is being answered is answered before."""
        if self._is_deaf:
            return
        self._is_deaf = True
        self._count(reason)
        self._stop_waiting_for_request()
        is_in_body = self._is_in_body  # of the request that the last cycle answers
        if is_in_body and self.pipeline:  # it waits for its turn, and would wait for the rest of it then
            self.transport.abort()
        elif is_in_body and self._is_idle:
            self.transport.close()
        elif self._is_idle or (is_in_body and not self.cycle.response_started):
            self._end(_answer(cast(Hashable, error), detail), is_in_body)
        else:
            self.cycle.keep_alive = False

    def _end(self, answer: bytes, is_in_body: bool) -> None:
        if is_in_body:  # whoever reads it sees that its client is gone
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(answer)
        self.transport.close()

    def _count(self, reason: str) -> None:
        server = self._server
        if server is not None:
            server.refused[reason] += 1


@lru_cache(64)
def _answer(error: type[VaeError], detail: str) -> bytes:
    """A problem document as it goes over the wire."""
    response, status = problem(error, detail), HTTPStatus(error.status)
    headers = [*response.raw_headers, (b"connection", b"close")]
    lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode()), *(b"%s: %s" % header for header in headers)]
    return b"\r\n".join(lines) + _END_OF_HEAD + bytes(response.body)
