"""Requests and responses that can be sent between processes, and a call of the application with them."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope

from app.api.routing.negotiation import VARY
from app.api.routing.problems import path_below_root
from app.api.routing.response import Header

logger = logging.getLogger(__name__)

_SCOPE_KEYS = ("http_version", "method", "scheme", "path", "raw_path", "root_path", "query_string", "client", "server")
"""Keys of the ASGI scope that are sent to a replica, beside the headers."""
_LENGTH = b"content-length"
_VARY = b"vary", VARY.encode()


@dataclass(frozen=True)
class ReplicaRequest:
    """An HTTP request to a replica, with its whole body."""

    scope: dict[str, Any]
    """The part of the ASGI scope that can be pickled."""
    body: bytes = b""

    @classmethod
    async def read(cls, scope: Scope, receive: Receive) -> "ReplicaRequest":
        """Read a request from its client.

        Raises:
            ClientDisconnect: the client disconnected before it had sent the whole body.
        """
        kept = {name: scope[name] for name in _SCOPE_KEYS if name in scope}
        headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        return cls({**kept, "headers": headers}, await Request(scope, receive).body())

    @property
    def method(self) -> str:
        """The method; GET for HEAD, whose response is the head of the response to GET."""
        return "GET" if self.scope["method"] == "HEAD" else str(self.scope["method"])

    @property
    def path(self) -> str:
        """The path below the prefix that a proxy strips."""
        return path_below_root(self.scope)

    def as_get(self) -> "ReplicaRequest":
        """Return the request with GET for HEAD and without `Accept*` headers, so that the body can be parsed."""
        headers = [(name, value) for name, value in self.scope["headers"] if not name.startswith(b"accept")]
        return replace(self, scope={**self.scope, "method": self.method, "headers": headers})


@dataclass(frozen=True)
class ReplicaResponse:
    """An HTTP response with its whole body, which is empty for HEAD."""

    status: int
    headers: list[Header] = field(repr=False)
    body: bytes = field(repr=False)
    replica: str = ""
    """The name of the replica that made the response."""

    def with_body(self, body: bytes) -> "ReplicaResponse":
        """Return the response with another body and its length, which the ingress may compress and say so."""
        headers = [header for header in self.headers if header[0] != _LENGTH and header != _VARY]
        return replace(self, headers=[(_LENGTH, b"%d" % len(body)), *headers], body=body)


async def call_app(app: ASGIApp, request: ReplicaRequest, state: Mapping[str, Any]) -> ReplicaResponse:
    """Call an ASGI application with `request` and the `state` of its lifespan, and return its response.

    Raises what the application raises before the response is complete; a later exception is logged.
    """
    inbox: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if not inbox:
            await asyncio.Event().wait()  # there is no disconnect: Ray cancels the whole call
        return inbox.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    try:
        # With "vae.leaves", a cancellation counts as a disconnect of the client.
        added = {"asgi": {"version": "3.0"}, "state": dict(state), "vae.leaves": True}
        await app({"type": "http", **added, **request.scope}, receive, send)
    except Exception:
        if not sent or sent[-1].get("more_body", "body" not in sent[-1]):
            raise
        logger.exception("an error after the response")
    start, *bodies = sent
    headers = [(bytes(name), bytes(value)) for name, value in start["headers"]]
    return ReplicaResponse(start["status"], headers, b"".join(message.get("body", b"") for message in bodies))
