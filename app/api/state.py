"""What the lifespan gives to every request: the models, the limits, what is shared."""

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Protocol, cast

import anyio
from fastapi import Depends, Request

from app.api.departures import Departures
from app.cache import Cache
from app.catalog import Catalog


class Limits(Protocol):
    """The bounds that requests are held to; the server's settings have them."""

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
    decoding: anyio.CapacityLimiter
    """How many requests' pictures are decoded at once."""
    refused: Counter[str]
    """How many requests were refused, by the reason: the slug of a problem, or what a connection did wrong."""
    workers: int
    """Processes that serve; where there are others, none may change by itself what it serves."""


def server_state(request: Request) -> State:
    """The typed state of the server, from the lifespan."""
    return cast(State, request.scope["state"]["server"])


Server = Annotated[State, Depends(server_state)]
