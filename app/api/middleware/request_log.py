"""The outermost middleware: every request gets an id, and is counted, timed, traced and logged."""

import logging
import random
import re
import time
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import REFUSALS, Overloaded
from app.metrics import Metrics
from app.observability import logs
from app.observability.timing import Timing
from app.observability.traceparent import trace_id

if TYPE_CHECKING:
    from app.observability.tracing import RequestSpan, Tracing

logger = logging.getLogger("app.requests")

_CLIENT_GONE = 499
"""As nginx counts requests whose client went away before it was answered."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/@+=~-]{1,128}")
_QUIET = {"live", "ready", "v2_server_live", "v2_server_ready"}
"""Operations that are asked for again and again: what goes well there is logged at debug alone."""
_METRICS = "/metrics"
_HUSH_SECONDS = 0.1
"""Time between lines about requests that a full queue refused: one each would be work in the worst of moments."""
_LONGEST_PATH, _LONGEST_ADDRESS = 256, 64
"""Characters that are logged; of an address a proxy may tell anything."""


class Watch:
    """Watches over every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: "Tracing | None") -> None:
        self.app, self._metrics, self._tracing = app, metrics, tracing
        self._untold, self._hushed_until = 0, 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        span = None if self._tracing is None else self._tracing.begin(scope, exchange.method)
        exchange.identify(span)
        self._metrics.began()
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except Exception as error:
            exchange.status, scope["vae.error"] = 500, error
            raise
        finally:
            self._ended(exchange, span)

    def _ended(self, exchange: "_Exchange", span: "RequestSpan | None") -> None:
        scope, status, seconds = exchange.scope, exchange.status, time.perf_counter() - exchange.began
        route, problem, error = scope.get("route"), scope.get("vae.problem"), scope.pop("vae.error", None)
        # Requests that reach no operation share one name: a label made of their paths would have no bound.
        operation = getattr(route, "operation_id", None) or "other"
        self._metrics.ended(operation, status, seconds)
        if problem is not None and status in REFUSALS:
            scope["state"]["server"].refused[problem] += 1
        if span is not None:
            span.end(operation, getattr(route, "path", None), status, exchange.timing, problem, error)
        level = exchange.level(operation)
        if logger.isEnabledFor(level) and not (problem == Overloaded.slug and self._is_hushed()):
            untold, self._untold = self._untold or None, 0
            logs.log(logger, level, exchange.words(), exchange.fields(operation, seconds) | {"untold": untold})

    def _is_hushed(self) -> bool:
        """Whether nothing is to be told of this refusal, because another was told of a moment ago."""
        now = time.monotonic()
        if now < self._hushed_until:
            self._untold += 1
            return True
        self._hushed_until = now + _HUSH_SECONDS
        return False


class _Exchange:
    """One request and its answer, as they pass."""

    __slots__ = ("_id", "_receive", "_send", "began", "bytes_in", "bytes_out", "method", "scope", "status", "timing")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.began, self.timing = time.perf_counter(), Timing()
        scope["vae.timing"] = self.timing
        self.scope, self._receive, self._send = scope, receive, send
        self.method: str = scope.get("vae.method", scope["method"])
        self.status, self.bytes_in, self.bytes_out = _CLIENT_GONE, 0, 0

    def identify(self, span: "RequestSpan | None") -> None:
        """Take over what the client calls its request and trace, or make it up."""
        given = parent = None
        for name, value in self.scope["headers"]:
            if name == b"x-request-id":
                given = value
            elif name == b"traceparent":
                parent = value
        self._id = given if given is not None and _REQUEST_ID.fullmatch(given) else b"%016x" % random.getrandbits(64)
        if span is not None:
            self.timing.runs = [] if span.is_recording else None
            trace: str | None = span.trace_id
        else:
            trace = None if parent is None else trace_id(parent)
        logs.identify(self._id.decode(), trace)

    async def receive(self) -> Message:
        """The next message of the client's."""
        message = await self._receive()
        if "body" in message:
            self.bytes_in += len(message["body"])
        return message

    async def send(self, message: Message) -> None:
        """A message to the client."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self._id)]
        elif "body" in message and self.method != "HEAD":
            self.bytes_out += len(message["body"])
        await self._send(message)

    def level(self, operation: str) -> int:
        """How much it matters to who reads the log."""
        if self.status >= 500:
            return logging.ERROR if self.status == 500 else logging.WARNING
        if self.status < 400 and (operation in _QUIET or self.scope["path"].endswith(_METRICS)):
            return logging.DEBUG
        return logging.INFO

    def words(self) -> str:
        """What was asked and answered; never the query, which may hold a payload."""
        return f"{self.method} {self._path()} {self.status}"

    def _path(self) -> str:
        """The path as it was sent: nothing in it can be taken for another word of a line."""
        return str(self.scope["raw_path"][:_LONGEST_PATH], "latin-1")

    def fields(self, operation: str, seconds: float) -> dict[str, Any]:
        """What the log tells of it."""
        scope, timing, client = self.scope, self.timing, self.scope.get("client")
        return {
            "key": scope.get("vae.key"),
            "client": None if client is None else client[0][:_LONGEST_ADDRESS],
            "method": self.method,
            "path": self._path(),
            "operation": operation,
            "status": self.status,
            "problem": scope.get("vae.problem"),
            "model": timing.model,
            "version": timing.version,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "milliseconds": round(1e3 * seconds, 3),
            "queue_milliseconds": round(1e3 * timing.queue, 3) if timing.inference else None,
            "inference_milliseconds": round(1e3 * timing.inference, 3) if timing.inference else None,
        }
