"""Prometheus collectors of numbers that the batcher, the catalog, the cache and the server keep."""

from collections import Counter as Counts
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge

from app.cache import Cache
from app.inference.batcher import Batcher
from app.vae.catalog import Catalog

_BATCHER = {
    "batches": "Batches run.",
    "rows": "Rows run in batches.",
    "refused_rows": "Rows refused by a full queue.",
    "dropped_rows": "Rows dropped before they ran: cancelled or past their deadline.",
    "failed_batches": "Batches that raised and were run again.",
}
BUNDLE_REFUSALS = "vae_bundle_refusals", "Bundles refused while serving; the models served before stay."
_GAUGES = {
    "vae_requests_in_progress": "Requests in progress.",
    "vae_connections": "Open connections.",
    "vae_queue_rows": "Rows waiting for a slot.",
    "vae_queue_capacity_rows": "Maximum rows waiting.",
    "vae_slots": "Maximum batches running at once, in threads.",
    "vae_busy_slots": "Batches running in threads.",
    "vae_cache_bytes": "Bytes of cached responses.",
    "vae_workers": "Worker processes.",
}


@dataclass(frozen=True)
class Sources:
    """The objects that the collectors read."""

    batcher: Batcher
    catalog: Catalog
    cache: Cache
    refused: Counts[str]
    """Refused requests and connections, by reason: the slug of a problem, or the limit that a connection exceeded."""
    connections: set[object]
    """The open connections."""


class _Total:
    """A Prometheus counter that follows a number that only grows."""

    def __init__(self, counter: Counter) -> None:
        self._counter, self._seen = counter, 0

    def follow(self, number: int) -> None:
        if number > self._seen:
            self._counter.inc(number - self._seen)
            self._seen = number


class Collectors:
    """The collectors of one process; `update` reads their sources."""

    def __init__(self, sources: Sources, registry: CollectorRegistry) -> None:
        def total(name: str, text: str) -> _Total:
            return _Total(Counter(name, text, registry=registry))

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=registry, multiprocess_mode="livesum")

        self._sources = sources
        self._batcher = {
            name: total("vae_batch_rows" if name == "rows" else f"vae_{name}", text) for name, text in _BATCHER.items()
        }
        self._hits = total("vae_cache_hits", "Responses from the cache.")
        self._misses = total("vae_cache_misses", "Responses that could be cached but were not in the cache.")
        self._refusals = total(*BUNDLE_REFUSALS)
        self._gauges = {name: gauge(name, text) for name, text in _GAUGES.items()}
        self._rejections = Counter("vae_rejections", "Requests and connections refused.", ["reason"], registry=registry)
        self._rejected: dict[str, _Total] = {}
        version = ("model", "version")
        self._loaded = gauge("vae_model_loaded", "Processes that serve this version; 0 once none does.", version)
        self._default = gauge(
            "vae_model_default", "Processes whose default model is this version; 0 once none is.", version
        )
        self._known: set[tuple[str, str]] = set()

    def update(self, in_progress: int) -> None:
        """Update all collectors; `in_progress` is the number of requests in progress."""
        batcher, cache = self._sources.batcher, self._sources.cache
        for name, number in {**vars(batcher.counters), "refused_rows": batcher.admission.refused_rows}.items():
            self._batcher[name].follow(number)
        self._hits.follow(cache.hits)
        self._misses.follow(cache.misses)
        values = {
            "vae_requests_in_progress": in_progress,
            "vae_connections": len(self._sources.connections),
            "vae_queue_rows": batcher.queue.rows,
            "vae_queue_capacity_rows": batcher.queue_rows,
            "vae_slots": batcher.slots,
            "vae_busy_slots": batcher.busy_slots,
            "vae_cache_bytes": cache.bytes,
            "vae_workers": 1,
        }
        for name, gauge in self._gauges.items():
            gauge.set(values[name])
        self._update_rejections()
        self._update_models()

    def _update_rejections(self) -> None:
        for reason, number in self._sources.refused.items():
            if reason not in self._rejected:
                self._rejected[reason] = _Total(self._rejections.labels(reason))
            self._rejected[reason].follow(number)

    def _update_models(self) -> None:
        catalog = self._sources.catalog
        self._refusals.follow(catalog.refusals)
        served = {(vae.manifest.name, str(vae.manifest.version)) for vae in catalog}
        default = catalog.default, str(catalog.versions(catalog.default)[-1])
        self._known |= served
        for version in self._known:  # 0, not absent: an absent series could also be one that is not scraped
            self._loaded.labels(*version).set(version in served)
            self._default.labels(*version).set(version == default)
