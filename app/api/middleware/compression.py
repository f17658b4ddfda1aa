"""Compression of text responses with gzip, for clients that accept it."""

from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.middleware.exchange import Exchange
from app.api.routing.negotiation import accepted

_MIN_BYTES = 1024
"""Minimum bytes of a response that is compressed."""
_THREAD_BYTES = 2**15
"""Minimum bytes that are compressed in a thread: fewer take less than a millisecond."""
_LEVEL = 1
"""Compression level: three times as fast as zlib's default, with output that is a tenth larger."""
_BINARY = (
    "application/octet-stream",
    "application/x-npy",
    "application/x-npz",
    "application/x-safetensors",
    "tensor/binary",
)
"""Media types of numbers and pixels, which gzip hardly makes smaller, besides those that Starlette names."""


class Compression(GZipMiddleware):
    """ASGI middleware: compresses text of more than 1 KiB. Other requests pass it unchanged."""

    def __init__(self, app: ASGIApp) -> None:
        excluded = (*DEFAULT_EXCLUDED_CONTENT_TYPES, *_BINARY)
        super().__init__(app, _MIN_BYTES, _LEVEL, _THREAD_BYTES, exclude_content_types=excluded)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for name, value in scope["headers"]:
            if name == b"accept-encoding" and "gzip" in accepted(value.decode("latin-1")):
                Exchange.of(scope).hooks.append(_weaken_etag)
                await super().__call__(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _weaken_etag(start: Message) -> None:
    """Mark the ETag of a compressed response as weak: the uncompressed response has other bytes."""
    headers = start["headers"]
    if (b"content-encoding", b"gzip") in headers:
        start["headers"] = [
            (name, b"W/" + value if name == b"etag" and value.startswith(b'"') else value) for name, value in headers
        ]
