"""Prometheus collectors and the middleware that feeds them; queue counters are read from the batcher when scraped."""

import time
from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.batcher import Batcher

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The metrics of one server."""

    def __init__(self, batcher: Batcher) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_BatcherCollector(batcher))
        self._requests = Counter("vae_requests", "Requests answered.", ["operation", "status"], registry=self._registry)
        self._latency = Histogram(
            "vae_request_seconds", "Time to answer.", ["operation"], buckets=_BUCKETS, registry=self._registry
        )
        self._labelled: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def count(self, operation: str, status: int, seconds: float) -> None:
        """One request, answered."""
        labelled = self._labelled.get((operation, status))
        if labelled is None:  # to find them costs more than to count
            labelled = self._requests.labels(operation, str(status)), self._latency.labels(operation)
            self._labelled[operation, status] = labelled
        requests, latency = labelled
        requests.inc()
        latency.observe(seconds)

    async def endpoint(self, request: Request) -> Response:
        """The metrics as Prometheus text."""
        return Response(generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _BatcherCollector(Collector):
    def __init__(self, batcher: Batcher) -> None:
        self._batcher = batcher

    def collect(self) -> Iterator[Metric]:
        counters = self._batcher.counters
        yield GaugeMetricFamily("vae_queue_rows", "Rows waiting for a slot.", self._batcher.queued_rows)
        yield CounterMetricFamily("vae_batches", "Batches run.", counters.batches)
        yield CounterMetricFamily("vae_batch_rows", "Rows run in batches.", counters.rows)
        yield CounterMetricFamily("vae_refused_rows", "Rows refused by a full queue.", counters.refused_rows)
        yield CounterMetricFamily(
            "vae_dropped_rows", "Rows dropped unrun: abandoned or overdue.", counters.dropped_rows
        )
        yield CounterMetricFamily(
            "vae_failed_batches", "Batches that raised and were run again.", counters.failed_batches
        )


class RequestMetrics:
    """ASGI middleware: counts and times requests by the operation id of their route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            # Requests that reach no operation share one name: a label made of their paths would have no bound.
            operation = getattr(scope.get("route"), "operation_id", None) or "other"
            self.metrics.count(operation, status, time.perf_counter() - start)
