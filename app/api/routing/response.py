"""A response with raw ASGI headers: building headers through Starlette takes several times as long."""

from collections.abc import Iterable

from starlette.responses import Response

Header = tuple[bytes, bytes]

SECURITY_HEADERS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
"""Headers of every response, beside Cross-Origin-Resource-Policy."""
OWN_PAGES_ONLY = (b"cross-origin-resource-policy", b"same-origin")
"""Pages of other origins may not embed the response."""


class RawResponse(Response):
    """Status 200, a body, and raw headers."""

    def __init__(self, body: bytes, headers: Iterable[Header]) -> None:
        self.status_code, self.background = 200, None
        self.body, self.raw_headers = body, list(headers)

    @classmethod
    def of(cls, body: bytes, media_type: bytes, headers: Iterable[Header] = ()) -> "RawResponse":
        """A response with Content-Length, Content-Type, and then `headers`."""
        return cls(body, [(b"content-length", b"%d" % len(body)), (b"content-type", media_type), *headers])
