"""`create_app(settings)`: composition and lifespan, nothing else."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI

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
from app.api.application import Application
from app.api.departures import Departures
from app.api.state import State
from app.api.v2 import index, inference, metadata, repository, statistics
from app.api.v2 import service as v2_service
from app.auth import Keys
from app.batcher import Batcher
from app.cache import Cache
from app.catalog import Catalog, load_catalog
from app.hangup import reloads_on_hangup
from app.limits import BodyLimit
from app.metrics import Metrics, RequestMetrics
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
    keys = Keys(admin=settings.admin_key.get_secret_value() if settings.admin_key else None)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        decoding = CapacityLimiter(settings.slot_count)
        state = State(
            limits=settings,
            catalog=catalog,
            cache=Cache(settings.cache_bytes),
            departures=Departures(),
            decoding=decoding,
            keys=keys,
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
    routers = (*ROUTERS, *V2_ROUTERS) if settings.admin_key is None else (*ROUTERS, *V2_ROUTERS, *MANAGEMENT)
    for module in routers:
        app.router.routes += module.router.routes  # included, they would be looked up twice a request
    app.add_route("/metrics", metrics.endpoint, include_in_schema=False)
    app.mount("/static", service.assets)
    problems.install(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestMetrics, metrics=metrics)
    openapi.install(app)
    return app


def _load(settings: Settings, batcher: Batcher) -> Catalog:
    return load_catalog(
        settings.models_dir,
        settings.default_model,
        batcher,
        names=settings.chosen_models,
        execution_providers=execution_providers(settings.execution_provider),
        threads=settings.threads,
        queue_seconds=settings.queue_seconds,
    )
