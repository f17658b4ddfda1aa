"""A request and its answer as they travel between processes, and the application's answer to such a request."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.routing.response import Header

logger = logging.getLogger(__name__)

_TRAVELS = ("http_version", "method", "scheme", "path", "raw_path", "root_path", "query_string", "client", "server")
_LENGTH = b"content-length"


@dataclass(frozen=True)
class Request:
    """An HTTP request with its whole body."""

    scope: dict[str, Any]
    """What of the ASGI scope can travel."""
    body: bytes = b""

    @classmethod
    async def received(cls, scope: Scope, receive: Receive) -> "Request":
        """What the client sends.

        Raises:
            ClientDisconnect: it went away before it had sent everything.
        """
        kept = {name: scope[name] for name in _TRAVELS if name in scope}
        headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
        return cls({**kept, "headers": headers}, await HttpRequest(scope, receive).body())

    @property
    def method(self) -> str:
        """Its method; HEAD counts as GET, to whose answer it gets the head."""
        method: str = self.scope["method"]
        return "GET" if method == "HEAD" else method

    @property
    def path(self) -> str:
        """Its path below the prefix that a proxy strips."""
        path: str = self.scope["path"]
        return path.removeprefix(self.scope.get("root_path", ""))

    def as_get(self) -> "Request":
        """The same, asked with GET where it was HEAD, and for no form of the answer but the usual one."""
        headers = [(name, value) for name, value in self.scope["headers"] if not name.startswith(b"accept")]
        return replace(self, scope={**self.scope, "method": self.method, "headers": headers})


@dataclass(frozen=True)
class Answer:
    """An HTTP response with its whole body; empty, where it answers HEAD."""

    status: int
    headers: list[Header] = field(repr=False)
    body: bytes = field(repr=False)
    replica: str = ""
    """Who answered, among the replicas of a model."""

    def with_body(self, body: bytes) -> "Answer":
        """The same with another body."""
        headers = [(name, value) for name, value in self.headers if name != _LENGTH]
        return replace(self, headers=[(_LENGTH, b"%d" % len(body)), *headers], body=body)

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Send it to the client, as ASGI responses are sent."""
        body = b"" if scope["method"] == "HEAD" else self.body
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": body})


async def answered(app: ASGIApp, request: Request, state: Mapping[str, Any]) -> Answer:
    """What an ASGI application answers; `state` is what its lifespan gave.

    Whatever the application raises before it has answered is raised; what comes later goes to the log.
    """
    inbox: list[Message] = [{"type": "http.request", "body": request.body, "more_body": False}]
    sent: list[Message] = []

    async def receive() -> Message:
        if not inbox:
            await asyncio.Event().wait()  # a client that goes away cancels the whole call
        return inbox.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    try:
        told = {"asgi": {"version": "3.0"}, "state": dict(state), "vae.leaves": True}  # who cancels it is the client
        await app({"type": "http", **told, **request.scope}, receive, send)
    except Exception:
        if not sent or sent[-1].get("more_body", "body" not in sent[-1]):
            raise
        logger.exception("after the answer")
    start, *bodies = sent
    headers = [(bytes(name), bytes(value)) for name, value in start["headers"]]
    return Answer(start["status"], headers, b"".join(message.get("body", b"") for message in bodies))
