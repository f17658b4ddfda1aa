"""`create_app(settings)`: composition and lifespan, nothing else."""

import logging
import os
import platform
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic import SecretStr

from app import __version__
from app.api import operations
from app.api.middleware.access import Access
from app.api.middleware.errors import ErrorResponses
from app.api.middleware.exchange import Exchanges
from app.api.middleware.headers import CrossOrigin, SecurityHeaders
from app.api.middleware.request_log import RequestLog
from app.api.openapi import document as openapi
from app.api.routing import problems
from app.api.routing.application import Application
from app.api.routing.disconnect import DisconnectWatcher
from app.api.routing.state import State
from app.api.service import manage, models, service
from app.api.v2 import index, inference, metadata, repository, server, statistics
from app.cache import Cache
from app.errors import REFUSALS
from app.inference.batcher import Batcher
from app.inference.graphs import ServingOptions
from app.inference.session import VERSION, execution_providers
from app.metrics import Metrics
from app.metrics.collectors import Sources
from app.metrics.processes import shared_folder
from app.security.keys import Keys
from app.security.rates import Rates, read_rate
from app.server.reload import reloads_on_hangup
from app.settings import Settings
from app.vae.catalog import Catalog, load_catalog

if TYPE_CHECKING:
    from app.observability.tracing import Tracing

logger = logging.getLogger(__name__)

ROUTERS = (operations, models, service)
V2_ROUTERS = (server, statistics, metadata, inference, index)
"""The Open Inference Protocol; `/v2/models/stats` is looked at before `/v2/models/{name}`."""
MANAGEMENT = (manage, repository)
"""What there is only where there are admin keys, and a request reaches all that serves."""


def check_models(settings: Settings) -> None:
    """Load every model, and let go of them.

    Raises:
        StartupError: a bundle or a setting is wrong; one sentence for the operator.
    """
    _load(settings, Batcher())


def create_app(settings: Settings, tracing: "Tracing | None" = None, *, managed: bool = True) -> FastAPI:
    """The application, with every model loaded; its requests are traced where there is a `tracing`.

    Where it is not `managed` there are no management routes, whatever keys there are: others serve the same models, and
    it does not know of them.

    Raises:
        StartupError: a bundle or a setting is wrong; one sentence for the operator.
    """
    metrics = Metrics()
    batcher = Batcher(
        slots=settings.slot_count,
        batch_rows=settings.batch_rows,
        batch_seconds=settings.batch_seconds,
        queue_rows=settings.queue_rows,
        observer=metrics.graphs,
        wait_seconds=settings.wait_seconds,
    )
    catalog = _load(settings, batcher)
    sources = Sources(batcher, catalog, Cache(settings.cache_bytes), refused=_refusals(), connections=set())
    metrics.read_from(sources, _build(catalog))
    keys = keys_of(settings)
    rates = Rates(read_rate(settings.rate_limit) if settings.rate_limit else None, shared_folder())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        decoding = ThreadPoolExecutor(settings.slot_count, thread_name_prefix="decoding")
        state = State(
            limits=settings,
            catalog=catalog,
            cache=sources.cache,
            watcher=DisconnectWatcher(settings.request_seconds),
            decoding=decoding,
            refused=sources.refused,
            connections=sources.connections,
            workers=settings.workers,
        )
        with reloads_on_hangup(catalog) if settings.workers == 1 else nullcontext():
            yield {"server": state}
        await catalog.close()
        decoding.shutdown(wait=False, cancel_futures=True)
        if tracing is not None:
            await tracing.close()

    app = Application(
        title="vaeserve",
        version=__version__,
        summary="Encode, decode, sample and interpolate with variational autoencoders.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the redirect would go to whatever host the client named
        telemetry={"tracing": False, "metrics": False, "logs": False},  # FastAPI's own sees few of our requests
    )
    routers = (*ROUTERS, *V2_ROUTERS, *(MANAGEMENT if managed and settings.has_management else ()))
    for module in routers:
        app.router.routes += module.router.routes  # included, they would be looked up twice a request
    app.add_route("/metrics", metrics.endpoint, include_in_schema=False)
    app.mount("/static", service.assets)
    # Starlette puts each before the ones added earlier: the innermost comes first here.
    if settings.asks_for_keys or keys or rates:
        app.add_middleware(Access, keys=keys, rates=rates, asks=settings.asks_for_keys)
    app.add_middleware(ErrorResponses)
    app.add_middleware(SecurityHeaders, varies_by_origin=bool(settings.cors_origins))
    if settings.cors_origins:
        app.add_middleware(CrossOrigin, origins=settings.cors_origins)
    app.add_middleware(RequestLog, metrics=metrics, tracing=tracing)
    app.add_middleware(Exchanges, max_body_bytes=settings.max_body_bytes)
    openapi.install(app)
    return app


def keys_of(settings: Settings) -> Keys:
    """The keys that callers may bring.

    Raises:
        StartupError: an entry is none, or the file cannot be read.
    """
    return Keys(
        api=_secret(settings.api_key),
        several=_secret(settings.api_keys),
        admin=_secret(settings.admin_key),
        file=settings.keys_file,
    )


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value is not None else None


def tracing_from_environment() -> "Tracing | None":
    """Spans that go where the standard OTEL_* variables say; None where they say nothing, or the extra is missing."""
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


def _refusals() -> Counter[str]:
    """None yet, of each kind."""
    return Counter({kind.slug: 0 for kind in problems.kinds() if kind.status in REFUSALS})


def _build(catalog: Catalog) -> dict[str, str]:
    """What is running."""
    provider = catalog.find().execution_provider
    return {
        "version": __version__,
        "execution_provider": provider,
        "onnxruntime": VERSION,
        "python": platform.python_version(),
    }


def _load(settings: Settings, batcher: Batcher) -> Catalog:
    return load_catalog(
        settings.models_dir,
        settings.default_model,
        batcher,
        names=settings.chosen_models,
        execution_providers=execution_providers(settings.execution_provider),
        options=ServingOptions(
            threads=settings.threads,
            queue_seconds=settings.queue_seconds,
            tile_side=settings.tile_side,
            max_pixels=settings.max_pixels,
        ),
    )
