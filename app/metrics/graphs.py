"""Prometheus metrics of the graphs: waiting times, batches and rows."""

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram

from app.observability.timing import GraphName

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_LABELS = ["model", "graph"]


class GraphMetrics:
    """The observer of the batcher."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        wait = Histogram(
            "vae_queue_seconds", "Time of a request's rows in the queue.", _LABELS, buckets=_SECONDS, registry=registry
        )
        inference = Histogram(
            "vae_inference_seconds", "Time to run a batch.", _LABELS, buckets=_SECONDS, registry=registry
        )
        size = Histogram("vae_batch_size_rows", "Rows in a batch.", _LABELS, buckets=_ROWS, registry=registry)
        total = Counter("vae_model_rows", "Rows run.", _LABELS, registry=registry)
        self._wait_of = cache(lambda graph: wait.labels(*graph))  # `labels` takes longer than counting
        self._batch_of = cache(lambda graph: (total.labels(*graph), size.labels(*graph), inference.labels(*graph)))

    def waited(self, graph: GraphName, seconds: float) -> None:
        self._wait_of(graph).observe(seconds)

    def ran(self, graph: GraphName, rows: int, seconds: float) -> None:
        total, size, inference = self._batch_of(graph)
        total.inc(rows)
        size.observe(rows)
        inference.observe(seconds)
