"""Compression of text responses with gzip, for clients that accept it."""

from asyncio import Semaphore

from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipResponder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.middleware.exchange import Exchange
from app.api.routing.negotiation import BINARY, VARY, accepted, is_text

_MIN_BYTES = 1024
"""Minimum bytes of a response that is compressed."""
_THREAD_BYTES = 2**15
"""Minimum bytes that are compressed in a thread: fewer take less than a millisecond."""
_LEVEL = 1
"""Compression level: three times as fast as zlib's default, with output that is a tenth larger."""


class Compression:
    """ASGI middleware: compresses text of more than 1 KiB. Other requests pass it unchanged.

    Text that answers GET or HEAD has `Vary: Accept-Encoding`, compressed or not, and on 304.
    """

    def __init__(self, app: ASGIApp, threads: int) -> None:
        """At most `threads` responses are compressed in threads at the same time."""
        self.app, self._threads = app, Semaphore(threads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app, exchange = self.app, Exchange.of(scope)
        for name, value in scope["headers"]:
            if name == b"accept-encoding" and "gzip" in accepted(value.decode("latin-1")):
                app = _Responder(app, self._threads)
                exchange.hooks.append(_weaken)
                break
        if exchange.method in ("GET", "HEAD"):
            exchange.hooks.append(_vary)
        await app(scope, receive, send)


class _Responder(GZipResponder):
    """Compresses one response."""

    def __init__(self, app: ASGIApp, threads: Semaphore) -> None:
        super().__init__(app, _MIN_BYTES, _LEVEL, thread_minimum_size=_THREAD_BYTES, exclude_content_types=BINARY)
        self._threads = threads

    async def apply_compression(self, body: bytes, *, more_body: bool) -> bytes:
        if len(body) < _THREAD_BYTES:
            return await super().apply_compression(body, more_body=more_body)
        async with self._threads:  # Starlette itself allows 40
            return await super().apply_compression(body, more_body=more_body)


def _vary(start: Message) -> None:
    """Tell caches that another client may receive this text in another encoding."""
    headers = MutableHeaders(raw=start["headers"])
    if is_text(headers.get("content-type", "")) and VARY not in headers.get("vary", ""):
        headers.add_vary_header(VARY)


def _weaken(start: Message) -> None:
    """Mark the ETag of text as weak, on 304 too: the compressed and the plain response have different bytes.

    The server never compresses a part of a file (206), and keeps its ETag. A compressed response does not offer parts.
    """
    headers = MutableHeaders(raw=start["headers"])
    etag = headers.get("etag", "")
    if etag.startswith('"') and VARY in headers.get("vary", "") and start["status"] != 206:
        headers["etag"] = f"W/{etag}"
    if "content-encoding" in headers:
        del headers["accept-ranges"], headers["last-modified"]
