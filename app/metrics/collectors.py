"""Prometheus collectors of numbers that the batcher, the catalog, the cache and the server keep."""

from collections import Counter as Counts
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge

from app.cache import Cache
from app.vae.catalog import Catalog


@dataclass(frozen=True)
class Sources:
    """The objects that the collectors read."""

    catalog: Catalog
    cache: Cache
    refused: Counts[str]
    """Refused requests and connections, by reason: the slug of a problem, or the limit that a connection exceeded."""
    connections: set[object]
    """The open connections."""


Read = Callable[[Sources], int]
BUNDLE_REFUSALS = "vae_bundle_refusals", "Bundles refused while serving; the models served before stay."
_COUNTERS: list[tuple[str, str, Read]] = [
    ("vae_batches", "Batches run.", lambda it: it.catalog.batcher.batches),
    ("vae_batch_rows", "Rows run in batches.", lambda it: it.catalog.batcher.rows),
    ("vae_refused_rows", "Rows refused by a full queue.", lambda it: it.catalog.batcher.admission.refused_rows),
    (
        "vae_dropped_rows",
        "Rows dropped before they ran: cancelled or past their deadline.",
        lambda it: it.catalog.batcher.dropped_rows,
    ),
    (
        "vae_failed_batches",
        "Batches that raised and were run again.",
        lambda it: it.catalog.batcher.failed_batches,
    ),
    ("vae_cache_hits", "Responses from the cache.", lambda it: it.cache.hits),
    ("vae_cache_misses", "Responses that could be cached but were not in the cache.", lambda it: it.cache.misses),
    (*BUNDLE_REFUSALS, lambda it: it.catalog.refusals),
]
_GAUGES: list[tuple[str, str, Read]] = [
    ("vae_connections", "Open connections.", lambda it: len(it.connections)),
    ("vae_queue_rows", "Rows waiting for a slot.", lambda it: it.catalog.batcher.queue.rows),
    ("vae_queue_capacity_rows", "Maximum rows waiting.", lambda it: it.catalog.batcher.queue_rows),
    ("vae_slots", "Maximum batches running at once, in threads.", lambda it: it.catalog.batcher.slots),
    ("vae_busy_slots", "Batches running in threads.", lambda it: it.catalog.batcher.busy_slots),
    ("vae_cache_bytes", "Bytes of cached responses.", lambda it: it.cache.bytes),
    (
        "vae_broken_bundles",
        "Versions that were broken in the models directory at the last load or reload.",
        lambda it: len(it.catalog.broken),
    ),
    ("vae_workers", "Worker processes.", lambda _: 1),
]


class Collectors:
    """The collectors of one process; `update` reads their sources."""

    def __init__(self, sources: Sources, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=registry, multiprocess_mode="livesum")

        self._sources = sources
        self._totals = [(Counter(name, text, registry=registry), read) for name, text, read in _COUNTERS]
        self._seen: Counts[Counter] = Counts()
        self._in_progress = gauge("vae_requests_in_progress", "Requests in progress.")
        self._gauges = [(gauge(name, text), read) for name, text, read in _GAUGES]
        self._rejections = Counter("vae_rejections", "Requests and connections refused.", ["reason"], registry=registry)
        version = ("model", "version")
        self._loaded = gauge("vae_model_loaded", "Processes that serve this version; 0 once none does.", version)
        self._default = gauge(
            "vae_model_default", "Processes whose default model is this version; 0 once none is.", version
        )
        self._known: set[tuple[str, str]] = set()

    def update(self, in_progress: int) -> None:
        """Update all collectors; `in_progress` is the number of requests in progress."""
        for total, read in self._totals:
            self._follow(total, read(self._sources))
        self._in_progress.set(in_progress)
        for gauge, read in self._gauges:
            gauge.set(read(self._sources))
        for reason, number in self._sources.refused.items():
            self._follow(self._rejections.labels(reason), number)
        self._update_models()

    def _follow(self, counter: Counter, number: int) -> None:
        """Raise a counter to a number that only grows."""
        if number > self._seen[counter]:
            counter.inc(number - self._seen[counter])
            self._seen[counter] = number

    def _update_models(self) -> None:
        catalog = self._sources.catalog
        served = {(vae.manifest.name, str(vae.manifest.version)) for vae in catalog}
        default = catalog.default, str(catalog.versions(catalog.default)[-1])
        self._known |= served
        for version in self._known:  # 0, not absent: an absent series could also be one that is not scraped
            self._loaded.labels(*version).set(version in served)
            self._default.labels(*version).set(version == default)
