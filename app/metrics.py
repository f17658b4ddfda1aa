"""Prometheus collectors and the middleware that feeds them; the queue's counters are read from the batcher.

Several processes share their numbers through the files of prometheus-client's multiprocess mode, so that whichever of
them is scraped answers for all. Its switch is the variable PROMETHEUS_MULTIPROC_DIR, which the supervisor sets.
"""

import asyncio
import os
import re
import time
from dataclasses import fields, replace
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.batcher import Batcher, Counters

FOLDER = "PROMETHEUS_MULTIPROC_DIR"

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_COUNTERS = {
    "batches": "Batches run.",
    "rows": "Rows run in batches.",
    "refused_rows": "Rows refused by a full queue.",
    "dropped_rows": "Rows dropped unrun: abandoned or overdue.",
    "failed_batches": "Batches that raised and were run again.",
}
_CLIENT_GONE = 499
"""As nginx counts requests whose client went away before it was answered."""
_SHARING_SECONDS = 0.1
"""How old the queue's numbers of another process may be."""


def shared_folder() -> Path | None:
    """Where the processes of one server share what they count; None where there is one alone."""
    folder = os.environ.get(FOLDER)
    return None if folder is None else Path(folder)


class Metrics:
    """The metrics of one server process."""

    def __init__(self, batcher: Batcher) -> None:
        self._registry = CollectorRegistry()
        self._folder = shared_folder()
        self._requests = Counter("vae_requests", "Requests answered.", ["operation", "status"], registry=self._registry)
        self._latency = Histogram(
            "vae_request_seconds", "Time to answer.", ["operation"], buckets=_BUCKETS, registry=self._registry
        )
        self._labelled: dict[tuple[str, int], tuple[Counter, Histogram]] = {}
        self._queue = _Queue(batcher, self._registry)

    def count(self, operation: str, status: int, seconds: float) -> None:
        """One request, answered."""
        labelled = self._labelled.get((operation, status))
        if labelled is None:  # to find them costs more than to count
            labelled = self._requests.labels(operation, str(status)), self._latency.labels(operation)
            self._labelled[operation, status] = labelled
        requests, latency = labelled
        requests.inc()
        latency.observe(seconds)
        if self._folder is not None:
            self._queue.update_soon()

    async def endpoint(self, request: Request) -> Response:
        """The metrics as Prometheus text, of all processes together."""
        self._queue.update()
        registry = self._registry
        if self._folder is not None:
            _forget_the_dead(self._folder)
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return Response(generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Queue:
    """The batcher's numbers as collectors."""

    def __init__(self, batcher: Batcher, registry: CollectorRegistry) -> None:
        self._batcher, self._seen = batcher, Counters()
        self._waiting = Gauge(
            "vae_queue_rows", "Rows waiting for a slot.", registry=registry, multiprocess_mode="livesum"
        )
        assert set(_COUNTERS) == {field.name for field in fields(Counters)}
        self._counters = {
            name: Counter("vae_batch_rows" if name == "rows" else f"vae_{name}", text, registry=registry)
            for name, text in _COUNTERS.items()
        }
        self._is_due = False

    def update(self) -> None:
        """Bring the collectors up to date."""
        self._is_due = False
        before, self._seen = self._seen, replace(self._batcher.counters)
        for name, counter in self._counters.items():
            if more := getattr(self._seen, name) - getattr(before, name):
                counter.inc(more)
        self._waiting.set(self._batcher.queued_rows)

    def update_soon(self) -> None:
        """The same in a moment, for a scrape that another process answers."""
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(_SHARING_SECONDS, self.update)


def _forget_the_dead(folder: Path) -> None:
    """Drop the gauges of processes that are no more; what they counted stays."""
    for path in folder.glob("gauge_live*.db"):
        pid = int(re.sub(r".*_(\d+)\.db", r"\1", path.name))
        if not _is_alive(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class RequestMetrics:
    """ASGI middleware: counts and times requests by the operation id of their route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), _CLIENT_GONE

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            status = 500
            raise
        finally:
            # Requests that reach no operation share one name: a label made of their paths would have no bound.
            operation = getattr(scope.get("route"), "operation_id", None) or "other"
            self.metrics.count(operation, status, time.perf_counter() - start)
