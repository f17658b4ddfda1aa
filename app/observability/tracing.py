"""OpenTelemetry: a span a request, and below it what its rows waited for and what ran them. The only file that imports
opentelemetry, which the extra `otel` installs; imported only where the standard OTEL_* variables ask for it.

Spans below a request's are made when it has ended, of times that are measured anyway: nothing is traced in the batcher.
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
_LONGEST_PATH, _LONGEST_ADDRESS = 256, 64
_FLUSH_SECONDS = 3.0
"""How long a server that stops tries to hand over its last spans."""


def exported() -> "Tracing":
    """Spans that go where OTEL_EXPORTER_OTLP_ENDPOINT says, by OTLP over HTTP, in batches."""
    exporter = OTLPSpanExporter()
    return Tracing(BatchSpanProcessor(exporter), exporter)


class Tracing:
    """The spans of one server process."""

    def __init__(self, processor: SpanProcessor, exporter: SpanExporter) -> None:
        """`processor` hands each ended span to `exporter`."""
        named = {"service.name": "vaeserve", "service.version": __version__}
        resource = Resource.create(named | dict(OTELResourceDetector().detect().attributes))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._exporter = exporter
        self._tracer: Tracer = self._provider.get_tracer("vaeserve", __version__)

    def begin(self, scope: Mapping[str, Any], method: str) -> "RequestSpan":
        """The span of a request that has come, below its client's."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        client = scope.get("client")
        attributes = {
            http_attributes.HTTP_REQUEST_METHOD: method if method in _METHODS else "_OTHER",
            url_attributes.URL_PATH: scope["path"][:_LONGEST_PATH],
            url_attributes.URL_SCHEME: scope["scheme"],
            network_attributes.NETWORK_PROTOCOL_VERSION: scope["http_version"],
        }
        if client is not None:
            attributes[client_attributes.CLIENT_ADDRESS] = client[0][:_LONGEST_ADDRESS]
        above = extract(headers, Context())
        span = self._tracer.start_span(method, above, SpanKind.SERVER, attributes)
        return RequestSpan(span, self._tracer)

    async def close(self) -> None:
        """Hand over the last spans; a collector that does not answer is given up soon."""
        handing_over = asyncio.create_task(asyncio.to_thread(self._provider.shutdown))
        await asyncio.wait([handing_over], timeout=_FLUSH_SECONDS)
        self._exporter.shutdown()
        await handing_over


class RequestSpan:
    """The span of one request."""

    def __init__(self, span: Span, tracer: Tracer) -> None:
        self._span, self._tracer = span, tracer
        self.trace_id = format_trace_id(span.get_span_context().trace_id)
        self.is_recording = span.is_recording()
        """Whether the trace was chosen to be kept."""

    def end(
        self,
        operation: str,
        route: str | None,
        status: int,
        timing: Timing,
        problem: str | None,
        error: BaseException | None,
    ) -> None:
        """It is answered; `problem` is the slug of an error's answer, `error` what was raised, if anything was."""
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
        """The wait and the inference of rows in one graph, as spans."""
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
