"""Security headers of every response, and CORS: the web origins whose pages may call the server."""

from functools import partial

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.middleware.exchange import Exchange
from app.api.routing.response import OWN_PAGES_ONLY, SECURITY_HEADERS, Header

_POLICY = b"content-security-policy"
_MARK = SECURITY_HEADERS[0][0]
"""If a response has this header, it has them all."""
_NO_PAGE = (_POLICY, b"default-src 'none'; frame-ancestors 'none'")
"""Content-Security-Policy of a response that is not a page: it loads nothing, and no frame may show it."""

_EXPOSED = (
    "ETag",
    "Retry-After",
    "X-Model",
    "X-Version",
    "X-Seed",
    "X-Request-ID",
    "X-Queue-Time",
    "X-Inference-Time",
    "X-Total-Time",
    "RateLimit",
    "RateLimit-Policy",
    "RateLimit-Limit",
    "RateLimit-Remaining",
    "RateLimit-Reset",
    "Inference-Header-Content-Length",
)


class SecurityHeaders:
    """ASGI middleware: adds the security headers to every response without them. Pages have their own policy."""

    def __init__(self, app: ASGIApp, origins: str) -> None:
        """`origins` are the origins of `VAE_CORS_ORIGINS`: their pages may call the server."""
        self.app = app
        policy = OWN_PAGES_ONLY[0], b"cross-origin" if "*" in origins else OWN_PAGES_ONLY[1]
        self._headers: tuple[Header, ...] = (*SECURITY_HEADERS, policy)
        if origins:  # keeps caches from giving one origin the response that another received
            self._headers = (*self._headers, (b"vary", b"Origin"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        Exchange.of(scope).hooks.append(self._mark)
        await self.app(scope, receive, send)

    def _mark(self, start: Message) -> None:
        headers = start["headers"]
        names = {name for name, _ in headers}
        if _MARK not in names:
            headers += self._headers
            if _POLICY not in names:
                headers.append(_NO_PAGE)


class CrossOrigin(CORSMiddleware):
    """ASGI middleware: allows pages of other origins to call the server.

    Keys travel in a header that the page sets, so that no cookie and no other credential of the browser is sent.
    """

    def __init__(self, app: ASGIApp, origins: str) -> None:
        """`origins` are separated by commas; `*` allows all."""
        super().__init__(
            app,
            allow_origins=[origin.strip() for origin in origins.split(",") if origin.strip()],
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )

    async def simple_response(self, scope: Scope, receive: Receive, send: Send, request_headers: Headers) -> None:
        """Add the headers through the exchange: Starlette would wrap `send` once more."""
        if (origin := request_headers.get("origin")) is not None:
            Exchange.of(scope).hooks.append(partial(self._allow, origin))
        await self.app(scope, receive, send)

    def _allow(self, origin: str, start: Message) -> None:
        headers = MutableHeaders(scope=start)
        headers.update(self.simple_headers)
        if not self.allow_all_origins and self.is_allowed_origin(origin):
            headers["Access-Control-Allow-Origin"] = origin  # `SecurityHeaders` has set Vary
