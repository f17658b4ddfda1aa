"""Prometheus metrics.

Requests and batches are counted as they end. Every other number is kept elsewhere and read when the metrics are
scraped. Several worker processes share their numbers through the files of prometheus-client's multiprocess mode, so
that a scrape of any of them gives the sum. The variable PROMETHEUS_MULTIPROC_DIR, which the supervisor sets, turns that
mode on.
"""

import asyncio
from functools import cache

from prometheus_client import (
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from starlette.requests import Request
from starlette.responses import Response

from app.metrics.collectors import Collectors, Sources
from app.metrics.formats import accepted_format
from app.metrics.graphs import GraphMetrics
from app.metrics.processes import all_processes, shared_folder

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SHARING_SECONDS = 0.1
"""Maximum age in seconds of the numbers that another process reads."""


class Metrics:
    """The metrics of one server process."""

    def __init__(self, graphs: GraphMetrics, sources: Sources, build: dict[str, str]) -> None:
        """`build` has the labels of `vae_build_info`."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._folder = shared_folder()
        self._registry = registry = graphs.registry
        requests = Counter("vae_requests", "Requests answered.", ["operation", "status"], registry=registry)
        latency = Histogram(
            "vae_request_seconds", "Time to answer.", ["operation"], buckets=_BUCKETS, registry=registry
        )
        self._labelled = cache(
            lambda operation, status: (requests.labels(operation, status), latency.labels(operation))
        )
        self._in_progress = 0
        self._is_due = False
        if self._folder is None:
            ProcessCollector(registry=registry)
        info = Gauge("vae_build_info", "What is running.", list(build), registry=registry, multiprocess_mode="livemax")
        info.labels(*build.values()).set(1)
        self._collectors = Collectors(sources, registry)
        self._update()

    def began(self) -> None:
        """Count a request in progress."""
        self._in_progress += 1
        self._update_soon()

    def ended(self, operation: str, status: int, seconds: float) -> None:
        """Count a request that was answered with `status` after `seconds`."""
        self._in_progress -= 1
        requests, latency = self._labelled(operation, status)  # `labels` takes longer than counting
        requests.inc()
        latency.observe(seconds)
        self._update_soon()

    async def endpoint(self, request: Request) -> Response:
        """`GET /metrics`: the metrics of all processes, as Prometheus text or OpenMetrics."""
        self._update()
        registry = self._registry if self._folder is None else all_processes(self._folder)
        write, content_type = accepted_format(", ".join(request.headers.getlist("accept")))
        return Response(write(registry), headers={"Content-Type": content_type})

    def _update(self) -> None:
        self._is_due = False
        self._collectors.update(self._in_progress)

    def _update_soon(self) -> None:
        """Update within `_SHARING_SECONDS`, for scrapes that another process answers."""
        if self._folder is not None and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(_SHARING_SECONDS, self._update)
