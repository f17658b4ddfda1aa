"""Spans of requests to the real application, and a server without the packages."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx2
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient

from app import __version__
from app.errors import InferenceFailed
from app.main import create_app, tracing_from_environment
from app.observability.tracing import Tracing
from app.settings import Settings
from tests.conftest import MODELS, ROOT, Log, Pixels, base64_png, free_port, full
from tests.live.test_workers import until
from tests.processes import PATIENCE

TRACE, PARENT = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
TRACEPARENT = f"00-{TRACE:032x}-{PARENT:016x}-01"

Traced = Callable[..., tuple[TestClient, InMemorySpanExporter]]


@pytest.fixture
def traced() -> Iterator[Traced]:
    """Clients of traced applications on the shipped bundles, and where the spans go."""
    entered: list[TestClient] = []

    def make(**settings: object) -> tuple[TestClient, InMemorySpanExporter]:
        exporter = InMemorySpanExporter()
        app = create_app(Settings(models_dir=MODELS, **settings), Tracing(SimpleSpanProcessor(exporter), exporter))
        client = TestClient(app, raise_server_exceptions=False)
        entered.append(client.__enter__())
        return client, exporter

    yield make
    for client in entered:
        client.__exit__(None, None, None)


def request_span(exporter: InMemorySpanExporter) -> ReadableSpan:
    """The one span of a request."""
    (span,) = [span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER]
    return span


def test_a_request_is_a_span_with_its_wait_and_its_inference_below(traced: Traced, digits: Pixels) -> None:
    client, exporter = traced()
    body = {"images": [base64_png(digit) for digit in digits[:3]]}
    answer = client.post("/encode?model=mnist-2d&version=1", json=body, headers={"traceparent": TRACEPARENT})
    assert answer.status_code == 200
    request = request_span(exporter)
    assert request.name == "encode"
    assert request.parent is not None
    assert (request.parent.trace_id, request.parent.span_id) == (TRACE, PARENT)
    assert dict(request.attributes or {}) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/encode",
        "url.path": "/encode",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "client.address": "testclient",
        "vae.model": "mnist-2d",
        "vae.version": 1,
    }
    assert request.status.status_code is StatusCode.UNSET
    assert request.resource.attributes["service.name"] == "vaeserve"
    assert request.resource.attributes["service.version"] == __version__
    below = {span.name: span for span in exporter.get_finished_spans() if span is not request}
    assert below.keys() == {"queue", "inference"}
    for span in below.values():
        assert span.context.trace_id == TRACE
        assert span.parent is not None
        assert span.parent.span_id == request.context.span_id
        assert {"vae.model": "mnist-2d", "vae.graph": "encoder", "vae.rows": 3}.items() <= (
            span.attributes or {}
        ).items()
    queue, inference = below["queue"], below["inference"]
    assert (inference.attributes or {})["vae.batch_rows"] == 3
    assert queue.end_time is not None
    assert inference.start_time is not None
    assert abs(queue.end_time - inference.start_time) < 5e6  # two clocks are compared
    assert (request.start_time or 0) - 5e6 < (queue.start_time or 0) <= queue.end_time
    assert (inference.end_time or 0) <= (request.end_time or 0) + 5e6


def test_without_a_parent_a_trace_begins_and_its_id_is_logged(traced: Traced, logged: Callable[[], Log]) -> None:
    client, exporter = traced()
    client.get("/sample?n=1")
    span = request_span(exporter)
    assert span.parent is None
    (line,) = [line for line in logged() if line["logger"] == "app.requests"]
    assert line["trace_id"] == f"{span.context.trace_id:032x}"


def test_requests_in_one_batch_know_how_large_it_was(traced: Traced) -> None:
    client, exporter = traced()
    client.get("/interpolate")
    client.post("/interpolate", json={"points": [{"label": 1}, {"label": 3}], "steps": 5})
    runs = [span for span in exporter.get_finished_spans() if span.name == "inference"]
    assert [(span.attributes or {})["vae.rows"] for span in runs] == [5]


def test_errors_are_recorded(traced: Traced) -> None:
    client, exporter = traced(queue_rows=4)

    class Broken:
        def run(self, *_: object) -> None:
            raise InferenceFailed("decoder failed")

    client.app_state["server"].catalog.find().graphs.sessions.decoder = Broken()
    assert client.get("/sample?n=1").status_code == 500
    span = request_span(exporter)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "inference-failed"
    (event,) = span.events
    assert (event.attributes or {})["exception.type"] == "app.errors.InferenceFailed"
    exporter.clear()
    with full(client):
        assert client.get("/sample?n=4").status_code == 503
    assert request_span(exporter).status.status_code is StatusCode.ERROR
    assert (request_span(exporter).attributes or {})["error.type"] == "overloaded"
    exporter.clear()
    assert client.get("/nope?secret=1").status_code == 404
    span = request_span(exporter)
    assert (span.name, span.status.status_code) == ("other", StatusCode.UNSET)
    assert "secret" not in str(span.attributes)


def test_what_the_client_does_not_sample_is_not_kept(traced: Traced) -> None:
    client, exporter = traced()
    assert client.get("/sample?n=1", headers={"traceparent": TRACEPARENT[:-1] + "0"}).status_code == 200
    assert exporter.get_finished_spans() == ()


@pytest.fixture
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("_environment")
@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_is_traced_unless_it_is_asked_for(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing_from_environment() is None


class Collector(BaseHTTPRequestHandler):
    """Takes spans as a collector would."""

    received: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def serve(program: str, port: int, **variables: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"VAE_PORT": str(port), "VAE_MODELS_DIR": str(MODELS)} | variables
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )


def asked(process: "subprocess.Popen[str]", port: int) -> None:
    """A sample is drawn, once the server is there."""

    def answers() -> bool:
        assert process.poll() is None, process.communicate()
        try:
            return httpx2.get(f"http://127.0.0.1:{port}/sample?n=1", timeout=PATIENCE).status_code == 200
        except httpx2.TransportError:
            time.sleep(0.1)
            return False

    assert until(answers)


SERVE = "from app.__main__ import main; main()"


def test_a_server_sends_its_spans_where_the_standard_variables_say() -> None:
    received: list[tuple[str, bytes]] = []
    collector = HTTPServer(("127.0.0.1", 0), type("Ours", (Collector,), {"received": received}))
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    port, endpoint = free_port(), f"http://127.0.0.1:{collector.server_port}"
    process = serve(SERVE, port, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_SERVICE_NAME="digits-of-mine")
    try:
        asked(process, port)
    finally:
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE)
        collector.shutdown()
        collector.server_close()
    assert {path for path, _ in received} == {"/v1/traces"}
    sent = b"".join(content for _, content in received)
    for words in (b"digits-of-mine", b"sample", b"inference", b"vae.batch_rows"):
        assert words in sent
    assert "Traceback" not in log


def test_a_collector_that_is_not_there_holds_nothing_up() -> None:
    port = free_port()
    process = serve(SERVE, port, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    try:
        asked(process, port)
    finally:
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in log


@pytest.mark.parametrize("endpoint", ["", "http://127.0.0.1:1"])
def test_a_server_without_the_packages_starts_and_serves(endpoint: str) -> None:
    port = free_port()
    # FastAPI brings opentelemetry-api.
    program = f"import sys; sys.modules |= {{'opentelemetry.sdk': None, 'opentelemetry.exporter': None}}; {SERVE}"
    process = serve(program, port, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
    try:
        asked(process, port)
        httpx2.get(f"http://127.0.0.1:{port}/sample?n=1", headers={"traceparent": TRACEPARENT})
    finally:
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE)
    assert f"trace_id={TRACE:032x}" in log
    assert ("install the extra `otel`" in log) == bool(endpoint)
