"""The application: FastAPI, with its own middleware stack, and operations found by method and path.

HEAD is handled as GET, without the body.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.routing.operation import OperationRoute
from app.api.routing.problems import path_below_root


class Application(FastAPI):
    """FastAPI that calls operations directly. FastAPI itself documents them, and routes all other requests."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._operations: dict[tuple[str, str], OperationRoute] = {}
        self._patterns: list[OperationRoute] = []
        self._routed = AsyncExitStackMiddleware(self.router)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        if scope["type"] != "http":  # the lifespan
            await self.router(scope, receive, send)
            return
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET", "vae.method": "HEAD"}
        operation = self._operations.get((scope["method"], path_below_root(scope))) or self._matching(scope)
        if operation is not None:
            scope["route"] = operation
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        await self.middleware_stack(scope, receive, send)

    def _matching(self, scope: Scope) -> OperationRoute | None:
        """The operation whose path has parameters and matches; the parameters are put into the scope."""
        for operation in self._patterns:
            match, found = operation.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                return operation
        return None

    def build_middleware_stack(self) -> ASGIApp:
        """Only our middleware: it replaces FastAPI's own layers, each of which would wrap `send` again."""
        for route in self.routes:
            if isinstance(route, OperationRoute) and route.param_convertors:
                self._patterns.append(route)
            elif isinstance(route, OperationRoute):
                self._operations |= {(method, route.path): route for method in route.methods or ()}
        app: ASGIApp = self._dispatch
        for middleware, arguments, options in reversed(self.user_middleware):
            app = middleware(app, *arguments, **options)
        return app

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        operation = scope.get("route")
        await (self._routed if operation is None else operation.handle)(scope, receive, send)
