"""`create_app(settings)`: composition and lifespan, nothing else."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI
from pydantic import SecretStr

from app import __version__
from app.api import (
    combine,
    decode,
    encode,
    interpolate,
    manage,
    manifold,
    models,
    openapi,
    posteriors,
    problems,
    reconstruct,
    remote,
    sample,
    score,
    service,
    traverse,
    vary,
)
from app.api.access import Access
from app.api.application import Application
from app.api.departures import Departures
from app.api.security import CrossOrigin, SecurityHeaders
from app.api.state import State
from app.api.v2 import index, inference, metadata, repository, statistics
from app.api.v2 import service as v2_service
from app.auth import Keys
from app.batcher import Batcher
from app.cache import Cache
from app.catalog import Catalog, load_catalog
from app.hangup import reloads_on_hangup
from app.limits import BodyLimit
from app.metrics import Metrics, RequestMetrics, shared_folder
from app.rates import Rates, read_rate
from app.session import execution_providers
from app.settings import Settings

ROUTERS = (
    encode,
    decode,
    sample,
    interpolate,
    reconstruct,
    score,
    vary,
    combine,
    traverse,
    manifold,
    posteriors,
    remote,
    models,
    service,
)
V2_ROUTERS = (v2_service, statistics, metadata, inference, index)
"""The Open Inference Protocol; `/v2/models/stats` is looked at before `/v2/models/{name}`."""
MANAGEMENT = (manage, repository)
"""What there is only with an admin key."""


def check_models(settings: Settings) -> None:
    """Load every model, and let go of them.

    Raises:
        StartupError: a bundle or a setting is wrong; one sentence for the operator.
    """
    _load(settings, Batcher())


def create_app(settings: Settings) -> FastAPI:
    """The application, with every model loaded.

    Raises:
        StartupError: a bundle or a setting is wrong; one sentence for the operator.
    """
    batcher = Batcher(
        slots=settings.slot_count,
        batch_rows=settings.batch_rows,
        batch_seconds=settings.batch_seconds,
        queue_rows=settings.queue_rows,
    )
    catalog = _load(settings, batcher)
    metrics = Metrics(batcher)
    keys = Keys(
        api=_secret(settings.api_key),
        several=_secret(settings.api_keys),
        admin=_secret(settings.admin_key),
        file=settings.keys_file,
    )
    rates = Rates(read_rate(settings.rate_limit) if settings.rate_limit else None, shared_folder())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        decoding = CapacityLimiter(settings.slot_count)
        state = State(
            limits=settings,
            catalog=catalog,
            cache=Cache(settings.cache_bytes),
            departures=Departures(),
            decoding=decoding,
            refused=Counter(),
            workers=settings.workers,
        )
        with reloads_on_hangup(catalog) if settings.workers == 1 else nullcontext():
            yield {"server": state}
        await catalog.close()

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
    )
    routers = (*ROUTERS, *V2_ROUTERS, *(MANAGEMENT if settings.has_management else ()))
    for module in routers:
        app.router.routes += module.router.routes  # included, they would be looked up twice a request
    app.add_route("/metrics", metrics.endpoint, include_in_schema=False)
    app.mount("/static", service.assets)
    problems.install(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(Access, keys=keys, rates=rates, asks=settings.asks_for_keys)
    app.add_middleware(SecurityHeaders, varies_by_origin=bool(settings.cors_origins))
    if settings.cors_origins:
        app.add_middleware(CrossOrigin, origins=settings.cors_origins)
    app.add_middleware(RequestMetrics, metrics=metrics)  # around all others
    openapi.install(app)
    return app


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value is not None else None


def _load(settings: Settings, batcher: Batcher) -> Catalog:
    return load_catalog(
        settings.models_dir,
        settings.default_model,
        batcher,
        execution_providers=execution_providers(settings.execution_provider),
        threads=settings.threads,
        queue_seconds=settings.queue_seconds,
        tile_side=settings.tile_side,
        max_pixels=settings.max_pixels,
    )
