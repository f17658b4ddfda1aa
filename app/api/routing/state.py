"""The state that the lifespan gives to every request: the models, the settings with its limits, and shared objects."""

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request
from starlette.types import Scope

from app.api.routing.disconnect import DisconnectWatcher
from app.cache import Cache
from app.inference.offload import Offload
from app.observability.timing import Timing
from app.security.addresses import network
from app.settings import Settings
from app.vae.catalog import Catalog

HEALTH_PATHS = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
"""Paths that are answered without a key, without a rate limit, and however many connections are open."""


@dataclass(frozen=True)
class State:
    """The server's objects that an operation may use."""

    limits: Settings
    catalog: Catalog
    cache: Cache
    watcher: DisconnectWatcher
    offload: Offload
    """Decodes what requests send, and writes responses, in threads."""
    refused: Counter[str]
    """Number of refused requests by reason: a problem's slug, or the fault of a connection."""
    connections: set[object]
    """The open connections of the server's protocol."""
    workers: int
    """Number of worker processes. If there are several, changing the models of only one is refused."""


def server_state(request: Request) -> State:
    """The server's state, from the lifespan."""
    return cast(State, request.scope["state"]["server"])


def caller_of(scope: Scope) -> str:
    """Who sent a request, as whom it takes turns: the name of its key or, without a key, its address or IPv6 /64."""
    return scope.get("vae.key") or network((scope.get("client") or ("",))[0])


def request_timing(request: Request) -> Timing:
    """The request's timing, from the request log."""
    return cast(Timing, request.scope["vae.timing"])


Server = Annotated[State, Depends(server_state)]
RequestTiming = Annotated[Timing, Depends(request_timing)]
