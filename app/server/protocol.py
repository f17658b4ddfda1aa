"""HTTP/1.1 within limits, on top of uvicorn's protocol."""

import asyncio
import re
from collections.abc import Hashable
from functools import lru_cache
from http import HTTPStatus
from typing import cast

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.api.routing.problems import path_below_root, problem
from app.api.routing.response import OWN_PAGES_ONLY, SECURITY_HEADERS
from app.api.routing.state import HEALTH_PATHS, State
from app.errors import BadRequest, BodyTooLarge, HeadersTooLarge, Overloaded, RequestTimeout, VaeError
from app.server.connections import Connections, Refusal
from app.server.sender import ResponseSender
from app.server.transport import GentleTransport, StallDetector
from app.settings import Settings

_HEALTH_SECONDS = 1.0
"""Seconds that a connection without a place has to ask for the server's health."""
_IDLE_DRAIN_SECONDS = 0.5
"""Seconds that a draining server keeps an idle connection open: a request may be on its way."""
_LINGER_SECONDS = 2.0
"""Seconds that a refused connection is still read, so that the client can read the refusal."""
_MAX_DISCARDED_BYTES = 2**27
"""Maximum bytes discarded after a refusal: many clients read nothing before they have sent everything."""
_PROBE_SECONDS = 0.25
"""Seconds until a client that closed its sending side is probed for the first time; each time takes twice as long."""
_PROBE = b"HTTP/1.1 100 Continue\r\n\r\n"
_MAX_PIPELINED = 64
"""Maximum pipelined requests of a connection; no common client sends more."""
_END_OF_HEAD = b"\r\n\r\n"
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 within limits of connections, sizes and times; the response to a violation is a problem document.

    Extends uvicorn, which limits neither headers nor the time in which a request arrives and a response is read,
    closes idle connections at shutdown with requests on their way (https://github.com/Kludex/uvicorn/issues/2757),
    drops requests whose client closed only its sending side, writes head and body separately, and parses the body
    behind an Upgrade header as the next request.

    A request that arrives whole, and whose response is read at once, starts no timer.
    """

    transport: GentleTransport  # type: ignore[assignment]
    server_state: Connections
    _server: State
    _limits: Settings
    _stall: StallDetector
    _placeless: Refusal | None = None
    """The refusal of every request but health, if there are too many connections."""
    _is_draining = False
    _is_receiving = False
    """Whether a request has arrived in part."""
    _is_in_head = False
    """Whether the head of the arriving request is incomplete."""
    _is_discarding = False
    """Whether input is discarded: the connection ends with the current response."""
    _pending_bytes = 0
    """Bytes received since the last head or body chunk ended: a lower bound of the size of an unfinished head."""
    _unread_bytes = 0
    """Bytes of a body that arrived after the response to its request."""
    _parse_refusal: Refusal = BadRequest, "not an HTTP/1.1 request", BadRequest.slug
    """The refusal to send when the parser stops."""
    _closed_at: float | None = None
    """Time of the event loop at which the server closed its side."""
    _receive_timer: asyncio.TimerHandle | None = None
    """Runs while a request is expected or arrives."""
    _probe_timer: asyncio.TimerHandle | None = None
    """Runs while a client that closed its sending side waits for a response."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start a connection; if there are too many, only to answer whether the server is healthy."""
        self._server = self.app_state["server"]
        self._limits = self._server.limits
        self._stall = StallDetector(transport, self.loop, self._limits.send_seconds, self._abort_stalled)
        gentle = GentleTransport(transport, self.loop, self._close)
        super().connection_made(cast(asyncio.Transport, gentle))
        self._server.connections.add(self)
        self._placeless = self.server_state.admit(self, self._limits)
        if self._placeless is None:
            self._start_receive_timer()
        else:
            self.app = self._answer_health
            self._receive_timer = self.loop.call_later(_HEALTH_SECONDS, self._refuse, *self._placeless)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_receive_timer()
        if self._probe_timer is not None:
            self._probe_timer.cancel()
        self._stall.stop()
        super().connection_lost(exc)
        self._server.connections.discard(self)
        self.server_state.release(self)

    def data_received(self, data: bytes) -> None:
        """Parse input, without Upgrade headers: Java's own client sends one in every request."""
        if self._is_discarding:
            self._pending_bytes += len(data)
            if self._pending_bytes > _MAX_DISCARDED_BYTES and self.transport.is_closing():
                self.transport.finish()
            return
        if not self._is_in_body:
            data = without_upgrade(data)
        self._pending_bytes += len(data)
        super().data_received(data)
        if self._pending_bytes > self._limits.max_header_bytes:
            self._refuse(*self._headers_too_large())
        elif self._receive_timer is None and (self._is_receiving or self._is_idle):
            self._start_receive_timer()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client closed its sending side: answer the requests that arrived whole, unless it is gone altogether.

        Returns whether the connection stays open, which asyncio cannot do over TLS. A client of HTTP/1.0 knows no
        interim response: if it is gone, that shows when its response is written.
        """
        if self._is_idle or self._is_in_body or self.transport.is_closing() or self.scheme == "https":
            return False
        self._is_receiving = False
        self._stop_receive_timer()
        self.cycle.keep_alive = False
        if self.cycle.scope["http_version"] != "1.0":
            self._probe_later(_PROBE_SECONDS)
        return True

    def on_message_begin(self) -> None:
        self._is_receiving = self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Check the head of a request and start its response."""
        if self._pending_bytes > self._limits.max_header_bytes:  # may include data before and behind the head
            size = len(self.url) + sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
            if size > self._limits.max_header_bytes:
                self._stop_parsing(*self._headers_too_large())
        if self.parser.get_http_version() not in ("1.0", "1.1"):  # the parser takes 0.9 and 2.0, too
            self._stop_parsing(*self._parse_refusal)
        if self.parser.should_upgrade():  # a header that `without_upgrade` missed
            self._stop_parsing(BadRequest, "an offer of another protocol", BadRequest.slug)
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() != "1.0"):  # RFC 9112, section 3.2
            self._stop_parsing(BadRequest, "a request has one Host header", BadRequest.slug)
        if len(self.pipeline) >= _MAX_PIPELINED:
            self._stop_parsing(Overloaded, "too many requests sent ahead", "too-many-pipelined")
        super().on_headers_complete()
        self.headers = []  # for trailers, which must not count as headers: they could carry another key or address
        self._is_in_head, self._pending_bytes, self._unread_bytes = False, 0, 0
        if (self._is_draining or self._placeless) and self.cycle is not None:
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        super()._start_asgi_task(cycle, cast(ASGI3Application, ResponseSender(cast(ASGIApp, app), cycle)))

    def on_body(self, body: bytes) -> None:
        """Take a chunk of a body; close if far too much of the body follows the response."""
        self._pending_bytes = 0
        super().on_body(body)
        if self.cycle.response_complete:
            self._unread_bytes += len(body)
            if self._unread_bytes > _MAX_DISCARDED_BYTES >= self._unread_bytes - len(body):
                self._count(BodyTooLarge.slug)
                self.transport.finish()

    def on_message_complete(self) -> None:
        self._is_receiving, self._pending_bytes = False, 0
        self._stop_receive_timer()
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Detect a stall from now on: the write buffer is full."""
        super().pause_writing()
        self._stall.start()

    def resume_writing(self) -> None:
        """Stop detecting a stall: the write buffer is nearly empty."""
        super().resume_writing()
        if not self.transport.is_closing():
            self._stall.stop()

    def shutdown(self) -> None:
        """Drain: close after the current response or, if idle, after one more request or half a second."""
        self._is_draining = True
        if self._is_idle:
            self.loop.call_later(_IDLE_DRAIN_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Refuse input at which the parser stopped; `msg` is uvicorn's own text and not used."""
        self._refuse(*self._parse_refusal)

    @property
    def idle_since(self) -> float | None:
        """Time of the event loop at which the connection became idle; None if a request arrives or is answered.

        A client of TLS that does not close its side after the server has closed is idle, too. Read from the timers that
        run anyway, so that a request costs nothing more.
        """
        if not self._is_idle or self._is_receiving or self._is_discarding or self.transport.has_unsent:
            return None
        if self._closed_at is not None:
            return self._closed_at
        if self.timeout_keep_alive_task is not None:
            return self.timeout_keep_alive_task.when() - self.timeout_keep_alive
        return None if self._receive_timer is None else self._receive_timer.when() - self._limits.receive_seconds

    def make_room(self) -> None:
        """Close the connection, which is idle."""
        self.transport.abort()

    def turn_away(self) -> None:
        """Refuse the connection if that is not done yet, and close it without lingering."""
        if self._is_idle:
            self._refuse(*cast(Refusal, self._placeless))
            self.transport.finish_soon()

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
        """Close the transport; linger if the client is still sending."""
        if self._is_receiving or self._is_discarding:
            self._is_discarding = True
            self.flow.resume_reading()
            self.transport.linger(_LINGER_SECONDS)
        else:
            self._closed_at = self.loop.time()
            self.transport.finish()
        self._stall.start()

    def _start_receive_timer(self) -> None:
        self._receive_timer = self.loop.call_later(self._limits.receive_seconds, self._time_out)

    def _stop_receive_timer(self) -> None:
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None

    def _time_out(self) -> None:
        """Refuse a request that did not arrive in time; restart the timer if the server had paused reading."""
        if self.flow.read_paused or self.pipeline:
            self._start_receive_timer()
        else:
            detail = f"a request must arrive within {self._limits.receive_seconds:g} seconds"
            self._refuse(RequestTimeout, detail, RequestTimeout.slug)

    async def _answer_health(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request on a connection without a place: pass on health, and refuse everything else."""
        if path_below_root(scope) in HEALTH_PATHS:
            await self.config.loaded_app(scope, receive, send)
        else:
            error, detail, reason = cast(Refusal, self._placeless)
            self._count(reason)
            response = problem(error(detail), scope)
            response.raw_headers += (*SECURITY_HEADERS, OWN_PAGES_ONLY)
            await response(scope, receive, send)

    def _probe_later(self, seconds: float) -> None:
        self._probe_timer = self.loop.call_later(seconds, self._probe, seconds)

    def _probe(self, seconds: float) -> None:
        """Find out whether the client is gone: writing again to a closed connection fails.

        Clients skip this interim response (RFC 9110, section 15.2).
        """
        if self.cycle.response_started:
            return
        if not self.pipeline:  # otherwise an earlier response may have begun
            self.transport.write(_PROBE)
        self._probe_later(2 * seconds)

    def _abort_stalled(self) -> None:
        self._count("answer-not-read")
        self.transport.abort()

    def _headers_too_large(self) -> Refusal:
        return HeadersTooLarge, f"at most {self._limits.max_header_bytes} bytes", HeadersTooLarge.slug

    def _stop_parsing(self, error: type[VaeError], detail: str, reason: str) -> None:
        """Raise in a callback of the parser, whereupon uvicorn calls `send_400_response`."""
        self._parse_refusal = error, detail, reason
        raise error(detail)

    def _refuse(self, error: type[VaeError], detail: str, reason: str) -> None:
        """Respond with a problem, count it, and close; a response that has begun is finished first."""
        if self._is_discarding:
            return
        self._is_discarding = True
        self._count(reason)
        self._stop_receive_timer()
        is_in_body = self._is_in_body  # of the request that the newest cycle answers
        if is_in_body and self.pipeline:  # that request waits for its turn, and its body will never be complete
            self.transport.abort()
        elif is_in_body and self._is_idle:
            self.transport.close()
        elif self._is_idle or (is_in_body and not self.cycle.response_started):
            if is_in_body:  # the application sees a disconnect
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.transport.write(_problem_bytes(cast(Hashable, error), detail))
            self.transport.close()
        else:
            self.cycle.keep_alive = False

    def _count(self, reason: str) -> None:
        self._server.refused[reason] += 1


def without_upgrade(data: bytes) -> bytes:
    """Rename Upgrade headers in data that begins within a head, keeping its length.

    A server may ignore an Upgrade (RFC 9110, section 7.8), but the parser would parse the body behind it as the next
    request. Finds `Upgrade:` and `upgrade:` within one read; the caller must refuse any other.
    """
    if b"pgrade:" not in data:
        return data
    head, end, rest = data.partition(_END_OF_HEAD)
    return _UPGRADE.sub(b"\r\nUnused:", head) + end + rest


@lru_cache(64)
def _problem_bytes(error: type[VaeError], detail: str) -> bytes:
    response, status = problem(error(detail)), HTTPStatus(error.status)
    headers = [*response.raw_headers, *SECURITY_HEADERS, OWN_PAGES_ONLY, (b"connection", b"close")]
    lines = [b"HTTP/1.1 %d %s" % (status, status.phrase.encode()), *(b"%s: %s" % header for header in headers)]
    return b"\r\n".join(lines) + _END_OF_HEAD + bytes(response.body)
