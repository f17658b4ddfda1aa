"""A response whose headers are given as they go over the wire: Starlette's own way to them is the longer one."""

from collections.abc import Iterable

from starlette.responses import Response

Header = tuple[bytes, bytes]


class Raw(Response):
    """200, a body, and headers as ASGI has them."""

    def __init__(self, body: bytes, headers: Iterable[Header]) -> None:
        self.status_code, self.background = 200, None
        self.body, self.raw_headers = body, list(headers)

    @classmethod
    def of(cls, body: bytes, media_type: bytes, headers: Iterable[Header] = ()) -> "Raw":
        """With its length and its type, and `headers` besides."""
        return cls(body, [(b"content-length", b"%d" % len(body)), (b"content-type", media_type), *headers])
