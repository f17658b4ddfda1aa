"""Numbers that others keep, as collectors."""

from collections import Counter as Counts
from dataclasses import dataclass, fields

from prometheus_client import CollectorRegistry, Counter, Gauge

from app.cache import Cache
from app.inference.batcher import Batcher, Counters
from app.vae.catalog import Catalog

_BATCHER = {
    "batches": "Batches run.",
    "rows": "Rows run in batches.",
    "refused_rows": "Rows refused by a full queue.",
    "dropped_rows": "Rows dropped unrun: abandoned or overdue.",
    "failed_batches": "Batches that raised and were run again.",
}
BUNDLE_REFUSALS = "vae_bundle_refusals", "Bundles refused while serving; what answered before answers on."
_GAUGES = {
    "vae_requests_in_progress": "Requests that are being answered.",
    "vae_connections": "Open connections.",
    "vae_queue_rows": "Rows waiting for a slot.",
    "vae_queue_capacity_rows": "Rows that may wait.",
    "vae_slots": "Batches that may run at once, in threads.",
    "vae_busy_slots": "Batches that run in threads now.",
    "vae_cache_bytes": "Memory of remembered answers.",
    "vae_workers": "Processes that serve.",
}


@dataclass(frozen=True)
class Sources:
    """Who keeps them."""

    batcher: Batcher
    catalog: Catalog
    cache: Cache
    refused: Counts[str]
    """Refused requests and connections, by reason."""
    connections: set[object]


class _Total:
    """A counter that follows a number, which only grows."""

    def __init__(self, counter: Counter) -> None:
        self._counter, self._seen = counter, 0

    def follow(self, number: int) -> None:
        if number > self._seen:
            self._counter.inc(number - self._seen)
            self._seen = number


class Numbers:
    """The collectors, which follow their sources when they are told to."""

    def __init__(self, sources: Sources, registry: CollectorRegistry) -> None:
        def total(name: str, text: str) -> _Total:
            return _Total(Counter(name, text, registry=registry))

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=registry, multiprocess_mode="livesum")

        self._sources = sources
        assert set(_BATCHER) == {field.name for field in fields(Counters)}
        self._batcher = {
            name: total("vae_batch_rows" if name == "rows" else f"vae_{name}", text) for name, text in _BATCHER.items()
        }
        self._hits = total("vae_cache_hits", "Answers from memory.")
        self._misses = total("vae_cache_misses", "Answers that might have come from memory, had they been there.")
        self._refusals = total(*BUNDLE_REFUSALS)
        self._gauges = {name: gauge(name, text) for name, text in _GAUGES.items()}
        self._rejections = Counter(
            "vae_rejections", "Requests and connections that were refused.", ["reason"], registry=registry
        )
        self._rejected: dict[str, _Total] = {}
        version = ("model", "version")
        self._loaded = gauge("vae_model_loaded", "Processes that serve this version; 0 once none does.", version)
        self._default = gauge(
            "vae_model_default", "Processes where this version answers who names no model; 0 once none does.", version
        )
        self._known: set[tuple[str, str]] = set()

    def update(self, in_progress: int) -> None:
        """Bring all of them up to date; so many requests are being answered."""
        batcher, cache = self._sources.batcher, self._sources.cache
        for name, total in self._batcher.items():
            total.follow(getattr(batcher.counters, name))
        self._hits.follow(cache.hits)
        self._misses.follow(cache.misses)
        values = {
            "vae_requests_in_progress": in_progress,
            "vae_connections": len(self._sources.connections),
            "vae_queue_rows": batcher.queued_rows,
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
        for version in self._known:  # a series that were to vanish could not be told from one that is not scraped
            self._loaded.labels(*version).set(version in served)
            self._default.labels(*version).set(version == default)
