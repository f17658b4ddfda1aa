"""What an answer tells a browser that gets hold of it, and which other sites' pages may ask."""

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = b"content-security-policy"
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_NOTHING = (_POLICY, b"default-src 'none'; frame-ancestors 'none'")
"""For what is no page: it loads nothing, and stands in nobody's frame."""

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
    """ASGI middleware: marks every answer that is not yet marked; pages have a policy of their own, which stays."""

    def __init__(self, app: ASGIApp, varies_by_origin: bool) -> None:
        """`varies_by_origin` keeps a cache from giving to one origin what another, or none, was answered."""
        self.app = app
        self._headers = (*_HEADERS, (b"vary", b"Origin")) if varies_by_origin else _HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                names = {name for name, _ in headers}
                if _HEADERS[0][0] not in names:
                    policy = () if _POLICY in names else (_NOTHING,)
                    message["headers"] = [*headers, *self._headers, *policy]
            await send(message)

        await self.app(scope, receive, marked if scope["type"] == "http" else send)


class CrossOrigin(CORSMiddleware):
    """ASGI middleware: lets the pages of other sites in. Keys travel in a header that the page sets, so that no cookie
    and no other credential of the browser goes along."""

    def __init__(self, app: ASGIApp, origins: str) -> None:
        """`origins` stand between commas; `*` is all."""
        super().__init__(
            app,
            allow_origins=[origin.strip() for origin in origins.split(",") if origin.strip()],
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )
