"""The application: FastAPI, but requests to operations skip FastAPI's own layers.

HEAD is answered as GET is, without the body.
"""

from typing import Any

from fastapi import FastAPI
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.routing.operation import OperationRoute


class Application(FastAPI):
    """FastAPI that finds operations by method and path; FastAPI itself documents them and answers all other routes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._operations: dict[tuple[str, str], OperationRoute] = {}
        self._patterns: list[OperationRoute] = []
        self._direct: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["method"] == "HEAD":
                scope, send = {**scope, "method": "GET", "vae.method": "HEAD"}, _without_body(send)
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            operation = self._operations.get((scope["method"], path)) or self._matching(scope)
            if operation is not None and self._direct is not None:
                scope["route"] = operation
                await self._direct(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def _matching(self, scope: Scope) -> OperationRoute | None:
        """The operation whose path has parameters and matches; the parameters are put into the scope."""
        for operation in self._patterns:
            match, found = operation.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                return operation
        return None

    def build_middleware_stack(self) -> ASGIApp:
        """FastAPI's layers, and beside them our middleware alone, for operations."""
        for route in self.routes:
            if isinstance(route, OperationRoute) and route.param_convertors:
                self._patterns.append(route)
            elif isinstance(route, OperationRoute):
                self._operations |= {(method, route.path): route for method in route.methods or ()}
        direct: ASGIApp = _handle
        for layer, arguments, options in reversed(self.user_middleware):
            direct = layer(direct, *arguments, **options)
        self._direct = direct
        return super().build_middleware_stack()


def _without_body(send: Send) -> Send:
    """Send the response to a GET without its body."""

    async def head(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return head


async def _handle(scope: Scope, receive: Receive, send: Send) -> None:
    await scope["route"].handle(scope, receive, send)
