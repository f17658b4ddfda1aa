"""The request log: every request gets an id, and is counted, timed, traced and logged."""

import logging
import random
import re
import time
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.middleware.exchange import Exchange
from app.errors import REFUSALS, Overloaded
from app.metrics import Metrics
from app.observability import logs
from app.observability.timing import Timing

if TYPE_CHECKING:
    from app.observability.tracing import RequestSpan, Tracing

logger = logging.getLogger("app.requests")

_CLIENT_DISCONNECTED = 499
"""nginx's status of a request whose client disconnected before the response."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/@+=~-]{1,128}")
_PROBES = {"live", "ready", "v2_server_live", "v2_server_ready"}
"""Operations that are polled: their successes are logged at the level debug."""
_METRICS = "/metrics"
_OVERLOAD_LOG_SECONDS = 0.1
"""Minimum seconds between log lines about a full queue: a line for each refusal would add to the load."""
_MAX_PATH, _MAX_ADDRESS = 256, 64
"""Maximum characters that are logged of a path and of an address, which a proxy may set to anything."""


class RequestLog:
    """ASGI middleware: counts, times, traces and logs each request."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: "Tracing | None") -> None:
        self.app, self._metrics, self._tracing = app, metrics, tracing
        self._untold, self._next_overload_line = 0, 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began, timing, exchange = time.perf_counter(), Timing(), Exchange.of(scope)
        scope["vae.timing"] = timing
        span = None if self._tracing is None else self._tracing.begin(scope, exchange.method)
        _identify(scope, timing, span)
        self._metrics.began()
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            exchange.status, scope["vae.error"] = 500, error
            raise
        finally:
            self._ended(scope, timing, span, time.perf_counter() - began)

    def _ended(self, scope: Scope, timing: Timing, span: "RequestSpan | None", seconds: float) -> None:
        exchange, route = Exchange.of(scope), scope.get("route")
        status = _CLIENT_DISCONNECTED if exchange.status is None else exchange.status
        problem, error = scope.get("vae.problem"), scope.pop("vae.error", None)
        # Requests to no operation share one name: their paths would be an unbounded number of label values.
        operation = getattr(route, "operation_id", None) or "other"
        self._metrics.ended(operation, status, seconds)
        if problem is not None and status in REFUSALS:
            scope["state"]["server"].refused[problem] += 1
        if span is not None:
            span.end(operation, getattr(route, "path", None), status, timing, problem, error)
        level = _level(status, operation, scope["path"])
        if logger.isEnabledFor(level) and not (problem == Overloaded.slug and self._is_suppressed()):
            untold, self._untold = self._untold or None, 0
            fields = _fields(scope, timing, operation, status, seconds)
            # Never the query string, which may hold a whole latent or image.
            message = f"{exchange.method} {fields['path']} {status}"
            logs.log(logger, level, message, fields | {"untold": untold})

    def _is_suppressed(self) -> bool:
        """Whether to omit a line about a full queue, because the last one is too recent."""
        now = time.monotonic()
        if now < self._next_overload_line:
            self._untold += 1
            return True
        self._next_overload_line = now + _OVERLOAD_LOG_SECONDS
        return False


def _identify(scope: Scope, timing: Timing, span: "RequestSpan | None") -> None:
    """Take the request's id and trace id from its headers, or generate an id; the response has its id."""
    given = parent = None
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value
        elif name == b"traceparent":
            parent = value
    request_id = given if given is not None and _REQUEST_ID.fullmatch(given) else b"%016x" % random.getrandbits(64)
    if span is not None:
        timing.runs = [] if span.is_recording else None
        trace: str | None = span.trace_id
    else:
        trace = None if parent is None else logs.trace_id_of(parent)
    logs.identify(request_id.decode(), trace)

    def mark(start: Message) -> None:
        start["headers"].append((b"x-request-id", request_id))

    Exchange.of(scope).hooks.append(mark)


def _level(status: int, operation: str, path: str) -> int:
    """The log level of a request."""
    if status >= 500:
        return logging.ERROR if status == 500 else logging.WARNING
    if status < 400 and (operation in _PROBES or path.endswith(_METRICS)):
        return logging.DEBUG
    return logging.INFO


def _fields(scope: Scope, timing: Timing, operation: str, status: int, seconds: float) -> dict[str, Any]:
    """The fields of the log record of a request."""
    exchange, client = Exchange.of(scope), scope.get("client")
    return {
        "key": scope.get("vae.key"),
        "client": None if client is None else client[0][:_MAX_ADDRESS],
        "method": exchange.method,
        "path": str(scope["raw_path"][:_MAX_PATH], "latin-1"),  # percent-encoded: contains no spaces
        "operation": operation,
        "status": status,
        "problem": scope.get("vae.problem"),
        "model": timing.model,
        "version": timing.version,
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        "milliseconds": round(1e3 * seconds, 3),
        "queue_milliseconds": round(1e3 * timing.queue, 3) if timing.inference else None,
        "inference_milliseconds": round(1e3 * timing.inference, 3) if timing.inference else None,
    }
