"""What the lifespan gives to every request: the models, the limits, what is shared."""

from collections import Counter
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Annotated, Protocol, cast

from fastapi import Depends, Request

from app.api.routing.disconnect import Departures
from app.cache import Cache
from app.observability.timing import Timing
from app.vae.catalog import Catalog


class Limits(Protocol):
    """The bounds that requests are held to; the server's settings have them."""

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
    """The server, as an operation sees it."""

    limits: Limits
    catalog: Catalog
    cache: Cache
    departures: Departures
    decoding: Executor
    """Threads in which requests' pictures are decoded; who is given up, waiting for one, leaves none behind."""
    refused: Counter[str]
    """How many requests were refused, by the reason: the slug of a problem, or what a connection did wrong."""
    connections: set[object]
    """The open ones, as the server's protocol has them."""
    workers: int
    """Processes that serve; where there are others, none may change by itself what it serves."""


def server_state(request: Request) -> State:
    """The typed state of the server, from the lifespan."""
    return cast(State, request.scope["state"]["server"])


def request_timing(request: Request) -> Timing:
    """The request's timing, from the request log."""
    return cast(Timing, request.scope["vae.timing"])


Server = Annotated[State, Depends(server_state)]
RequestTiming = Annotated[Timing, Depends(request_timing)]
