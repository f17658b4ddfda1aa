"""What Ray's own proxy answers, in problem documents: that nothing is deployed, that an ingress died or did not answer.

Ray asks `middlewares` for what to put around each of its proxies, where the variable
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names it; deploy/ray/serve.yaml sets it.
"""

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.routing.problems import problem
from app.errors import DeadlineExceeded, NotFound, Overloaded, VaeError

_PROBLEMS: dict[int, type[VaeError]] = {404: NotFound, 408: DeadlineExceeded, 500: Overloaded, 503: Overloaded}
_RAYS_TYPE = b"text/plain"
"""Of the proxy's own answers, and of no refusal of ours."""
_RAYS_PATHS = "/-/"
"""What the proxy says of itself to load balancers."""


def middlewares() -> list[Middleware]:
    """What Ray puts around a proxy."""
    return [Middleware(ProxyProblems)]


class ProxyProblems:
    """ASGI middleware: a problem document in place of an answer of the proxy's own, or of none."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(_RAYS_PATHS):
            await self.app(scope, receive, send)
            return
        error: type[VaeError] | None = Overloaded  # where nothing is answered, an ingress died

        async def told(message: Message) -> None:
            nonlocal error
            if message["type"] == "http.response.start":
                error = _problem_of(message)
            if error is None:
                await send(message)

        await self.app(scope, receive, told)
        if error is not None:
            await problem(error, scope=scope)(scope, receive, send)


def _problem_of(start: Message) -> type[VaeError] | None:
    """What an answer of the proxy's own means; None of any other."""
    types = [value for name, value in start["headers"] if name == b"content-type"]
    is_rays = bool(types) and types[0].startswith(_RAYS_TYPE)
    return _PROBLEMS.get(start["status"]) if is_rays else None
