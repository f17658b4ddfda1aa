"""`create_app(settings)`: compose the application from its parts."""

import logging
import os
import platform
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic import SecretStr

from app import __version__
from app.api import MANAGEMENT, ROUTERS, V2_ROUTERS
from app.api.middleware.access import Access
from app.api.middleware.compression import Compression
from app.api.middleware.errors import ErrorResponses
from app.api.middleware.exchange import Exchanges
from app.api.middleware.headers import CrossOrigin, SecurityHeaders
from app.api.middleware.origins import Origins
from app.api.middleware.request_log import RequestLog
from app.api.openapi import document as openapi
from app.api.routing import problems
from app.api.routing.application import Application
from app.api.routing.disconnect import DisconnectWatcher
from app.api.routing.state import State
from app.api.service import service
from app.cache import Cache
from app.errors import REFUSALS
from app.inference.batcher import Batcher
from app.inference.graphs import ServingOptions
from app.inference.session import VERSION, execution_providers
from app.metrics import Metrics
from app.metrics.collectors import Sources
from app.metrics.graphs import GraphMetrics
from app.metrics.processes import shared_folder
from app.security.addresses import is_loopback
from app.security.keys import Keys
from app.security.rates import Rates, read_rate
from app.settings import Settings
from app.vae.catalog import Catalog, load_catalog

if TYPE_CHECKING:
    from app.observability.tracing import Tracing

logger = logging.getLogger(__name__)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[dict[str, Any]]]


def create_app(settings: Settings, tracing: "Tracing | None" = None, *, managed: bool = True) -> FastAPI:
    """Create the application, with every model loaded.

    Requests are traced if `tracing` is given. Without `managed` there are no management routes, even with an admin
    key: for replicas, which must all serve the same models.

    Raises:
        StartupError: a bundle or a setting is wrong; the message is one sentence for the operator.
    """
    graph_metrics = GraphMetrics()
    batcher = Batcher(
        slots=settings.slot_count,
        batch_rows=settings.batch_rows,
        batch_seconds=settings.batch_seconds,
        queue_rows=settings.queue_rows,
        observer=graph_metrics,
        wait_seconds=settings.wait_seconds,
    )
    catalog = load_models(settings, batcher)
    refused = Counter({kind.slug: 0 for kind in problems.kinds() if kind.status in REFUSALS})
    sources = Sources(catalog, Cache(settings.cache_bytes), refused=refused, connections=set())
    metrics = Metrics(graph_metrics, sources, _build_info(catalog))
    app = Application(
        title="vaeserve",
        version=__version__,
        summary="Encode, decode, sample and interpolate with variational autoencoders.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=_lifespan(settings, sources, tracing),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would go to the host in the client's Host header
        telemetry={"tracing": False, "metrics": False, "logs": False},  # FastAPI's own misses most of our requests
    )
    for module in (*ROUTERS, *V2_ROUTERS, *(MANAGEMENT if managed and settings.has_management else ())):
        app.router.routes += module.router.routes  # `include_router` would match every request twice
    app.add_route("/metrics", metrics.endpoint, include_in_schema=False)
    app.mount("/static", service.assets)
    _add_middleware(app, settings, metrics, tracing)
    openapi.install(app)
    return app


def _lifespan(settings: Settings, sources: Sources, tracing: "Tracing | None") -> Lifespan:
    """Return the lifespan: it gives every request the typed state, and closes everything at the end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        state = State(
            limits=settings,
            catalog=sources.catalog,
            cache=sources.cache,
            watcher=DisconnectWatcher(settings.request_seconds),
            offload=sources.catalog.batcher.offload,
            refused=sources.refused,
            connections=sources.connections,
            workers=settings.workers,
        )
        yield {"server": state}
        await sources.catalog.batcher.close()
        if tracing is not None:
            await tracing.close()

    return lifespan


def _add_middleware(app: FastAPI, settings: Settings, metrics: Metrics, tracing: "Tracing | None") -> None:
    """Add the middleware, innermost first."""
    keys = keys_of(settings)
    rates = Rates(read_rate(settings.rate_limit) if settings.rate_limit else None, shared_folder())
    if settings.asks_for_keys or keys or settings.rate_limit:
        app.add_middleware(Access, keys=keys, rates=rates, asks=settings.asks_for_keys)
    if not settings.asks_for_keys:  # a foreign page knows no key
        is_local = is_loopback(settings.host)
        app.add_middleware(Origins, hosts=settings.allowed_hosts, is_local=is_local, origins=settings.cors_origins)
    app.add_middleware(ErrorResponses)
    app.add_middleware(Compression, threads=settings.slot_count)
    app.add_middleware(SecurityHeaders, origins=settings.cors_origins)
    if settings.cors_origins:
        app.add_middleware(CrossOrigin, origins=settings.cors_origins)
    app.add_middleware(RequestLog, metrics=metrics, tracing=tracing)
    app.add_middleware(Exchanges, max_body_bytes=settings.max_body_bytes, max_held_bytes=settings.held_bytes)


def keys_of(settings: Settings) -> Keys:
    """Return the keys that the server accepts.

    Raises:
        StartupError: an entry is malformed, or the keys file cannot be read.
    """
    return Keys(
        api=_secret(settings.api_key),
        entries=_secret(settings.api_keys),
        admin=_secret(settings.admin_key),
        file=settings.keys_file,
    )


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value is not None else None


def tracing_from_environment() -> "Tracing | None":
    """Return the tracing that the OTEL_* variables configure; None without them or without the extra `otel`.

    OpenTelemetry is imported only if a variable asks for it.
    """
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    is_off = (
        os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    )
    if is_off or not any(map(os.environ.get, endpoints)):
        return None
    try:
        from app.observability import tracing
    except ImportError:
        logger.warning("%s is set, but nothing is traced: install the extra `otel`", " or ".join(endpoints))
        return None
    return tracing.exported()


def _build_info(catalog: Catalog) -> dict[str, str]:
    """Return the versions of what is running, for the metric `vae_build_info`."""
    return {
        "version": __version__,
        "execution_provider": catalog.find().execution_provider,
        "onnxruntime": VERSION,
        "python": platform.python_version(),
    }


def load_models(settings: Settings, batcher: Batcher | None = None) -> Catalog:
    """Load every model; without `batcher`, only to check that all can be loaded.

    Raises:
        StartupError: a bundle or a setting is wrong; the message is one sentence for the operator.
    """
    return load_catalog(
        settings.models_dir,
        settings.default_model,
        batcher or Batcher(),
        names=settings.chosen_models,
        execution_providers=execution_providers(settings.execution_provider),
        options=ServingOptions(
            threads=settings.threads,
            queue_seconds=settings.queue_seconds,
            tile_side=settings.tile_side,
            whole_bytes=settings.run_bytes,
            max_pixels=settings.max_pixels,
            load_seconds=settings.load_seconds,
        ),
    )
