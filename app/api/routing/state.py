"""The state that the lifespan gives to every request: the models, the limits, and shared objects."""

from collections import Counter
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Annotated, Protocol, cast

from fastapi import Depends, Request

from app.api.routing.disconnect import DisconnectWatcher
from app.cache import Cache
from app.observability.timing import Timing
from app.vae.catalog import Catalog


class Limits(Protocol):
    """Limits of connections and requests, from the server's settings."""

    @property
    def max_connections(self) -> int: ...
    @property
    def max_header_bytes(self) -> int: ...
    @property
    def receive_seconds(self) -> float: ...
    @property
    def send_seconds(self) -> float: ...
    @property
    def max_rows(self) -> int: ...
    @property
    def max_draws(self) -> int: ...
    @property
    def max_steps(self) -> int: ...
    @property
    def max_manifold(self) -> int: ...
    @property
    def max_pixels(self) -> int: ...
    @property
    def max_body_bytes(self) -> int: ...


@dataclass(frozen=True)
class State:
    """The server's objects that an operation may use."""

    limits: Limits
    catalog: Catalog
    cache: Cache
    watcher: DisconnectWatcher
    decoding: Executor
    """Threads that decode images. Their number is bounded, even if requests are cancelled."""
    refused: Counter[str]
    """Number of refused requests by reason: a problem's slug, or the fault of a connection."""
    connections: set[object]
    """The open connections of the server's protocol."""
    workers: int
    """Number of worker processes. If there are several, changing the models of only one is refused."""


def server_state(request: Request) -> State:
    """The server's state, from the lifespan."""
    return cast(State, request.scope["state"]["server"])


def request_timing(request: Request) -> Timing:
    """The request's timing, from the request log."""
    return cast(Timing, request.scope["vae.timing"])


Server = Annotated[State, Depends(server_state)]
RequestTiming = Annotated[Timing, Depends(request_timing)]
