"""Problem documents in place of the errors of Ray's own proxy: nothing deployed, an ingress that died or timed out.

Ray calls `middlewares` for each of its proxies if the variable RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it;
deploy/ray/serve.yaml sets it.
"""

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.routing.problems import problem
from app.errors import DeadlineExceeded, NotFound, Overloaded, VaeError

_PROBLEMS: dict[int, type[VaeError]] = {404: NotFound, 408: DeadlineExceeded, 500: Overloaded, 503: Overloaded}
_RAY_CONTENT_TYPE = "text/plain"
"""The content type of the proxy's own responses, which no error of the application has."""
_RAY_PATHS = "/-/"
"""Paths on which the proxy reports its own health to load balancers."""


def middlewares() -> list[Middleware]:
    """Return the middleware for a proxy."""
    return [Middleware(ProxyProblems)]


class ProxyProblems:
    """ASGI middleware: sends a problem document in place of an error of the proxy itself, or of no response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_RAY_PATHS):
            await self.app(scope, receive, send)
            return
        error: type[VaeError] | None = Overloaded  # an ingress that dies sends nothing

        async def send_unless_error(message: Message) -> None:
            nonlocal error
            if message["type"] == "http.response.start":
                is_ray = Headers(raw=message["headers"]).get("content-type", "").startswith(_RAY_CONTENT_TYPE)
                error = _PROBLEMS.get(message["status"]) if is_ray else None
            if error is None:
                await send(message)

        await self.app(scope, receive, send_unless_error)
        if error is not None:
            await problem(error(), scope)(scope, receive, send)
