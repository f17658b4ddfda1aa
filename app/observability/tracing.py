"""OpenTelemetry: a span per request, and child spans for the time of its rows in the queue and in inference.

Only this file imports opentelemetry, which the extra `otel` installs. It is imported only if the standard OTEL_*
variables ask for tracing. Child spans are made when the request has ended, from times that are measured anyway: the
batcher itself makes no spans.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.semconv.attributes import (
    client_attributes,
    error_attributes,
    http_attributes,
    network_attributes,
    url_attributes,
)
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, format_trace_id, set_span_in_context

from app import __version__
from app.observability.timing import GraphRun, Timing

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"}
_MAX_PATH, _MAX_ADDRESS = 256, 64
"""Maximum characters of a path and of an address in a span."""
_FLUSH_SECONDS = 3.0
"""Maximum seconds that a stopping server waits for the collector to take its last spans."""


def exported() -> "Tracing":
    """Tracing that sends spans in batches to OTEL_EXPORTER_OTLP_ENDPOINT, by OTLP over HTTP."""
    exporter = OTLPSpanExporter()
    return Tracing(BatchSpanProcessor(exporter), exporter)


class Tracing:
    """Makes the spans of one server process."""

    def __init__(self, processor: SpanProcessor, exporter: SpanExporter) -> None:
        """`processor` hands each ended span to `exporter`."""
        named = {"service.name": "vaeserve", "service.version": __version__}
        resource = Resource.create(named | dict(OTELResourceDetector().detect().attributes))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._exporter = exporter
        self._tracer: Tracer = self._provider.get_tracer("vaeserve", __version__)

    def begin(self, scope: Mapping[str, Any], method: str) -> "RequestSpan":
        """Start the span of a request, as a child of the client's span if its headers name one."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        client = scope.get("client")
        attributes = {
            http_attributes.HTTP_REQUEST_METHOD: method if method in _METHODS else "_OTHER",
            url_attributes.URL_PATH: scope["path"][:_MAX_PATH],
            url_attributes.URL_SCHEME: scope["scheme"],
            network_attributes.NETWORK_PROTOCOL_VERSION: scope["http_version"],
        }
        if client is not None:
            attributes[client_attributes.CLIENT_ADDRESS] = client[0][:_MAX_ADDRESS]
        above = extract(headers, Context())
        span = self._tracer.start_span(method, above, SpanKind.SERVER, attributes)
        return RequestSpan(span, self._tracer)

    async def close(self) -> None:
        """Send the last spans, for at most `_FLUSH_SECONDS`."""
        flushing = asyncio.create_task(asyncio.to_thread(self._provider.shutdown))
        await asyncio.wait([flushing], timeout=_FLUSH_SECONDS)
        self._exporter.shutdown()
        await flushing


class RequestSpan:
    """The span of one request."""

    def __init__(self, span: Span, tracer: Tracer) -> None:
        self._span, self._tracer = span, tracer
        self.trace_id = format_trace_id(span.get_span_context().trace_id)
        self.is_recording = span.is_recording()
        """Whether the trace is sampled."""

    def end(
        self,
        operation: str,
        route: str | None,
        status: int,
        timing: Timing,
        problem: str | None,
        error: BaseException | None,
    ) -> None:
        """End the span. `problem` is the slug of the error response, `error` the exception that was raised, if any."""
        span = self._span
        span.update_name(operation)
        span.set_attribute(http_attributes.HTTP_RESPONSE_STATUS_CODE, status)
        if route is not None:
            span.set_attribute(http_attributes.HTTP_ROUTE, route)
        if timing.model is not None and timing.version is not None:
            span.set_attributes({"vae.model": timing.model, "vae.version": timing.version})
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        if status >= 400:
            span.set_attribute(error_attributes.ERROR_TYPE, problem or str(status))
        if error is not None:
            span.record_exception(error)
        for run in timing.runs or ():
            self._add(run)
        span.end()

    def _add(self, run: GraphRun) -> None:
        """Add the queue and inference spans of the rows in one graph."""
        since_1970 = time.time_ns() - time.monotonic_ns()
        submitted, began, ended = (since_1970 + int(1e9 * at) for at in (run.submitted, run.began, run.ended))
        model, graph = run.graph
        attributes: dict[str, str | int] = {"vae.model": model, "vae.graph": graph, "vae.rows": run.rows}
        below = set_span_in_context(self._span, Context())
        wait = self._tracer.start_span("queue", below, attributes=attributes, start_time=submitted)
        wait.end(began if run.began else ended)
        if run.began:
            attributes["vae.batch_rows"] = run.batch_rows
            self._tracer.start_span("inference", below, attributes=attributes, start_time=began).end(ended)
