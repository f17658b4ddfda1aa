"""Caching of GET operations: ETag, Cache-Control, 304, and the server's cache of responses.

A response depends only on the bundle, the software and the query, unless its draws have no seed. So its ETag is known
before it is computed, and a cached response need not be computed again.
"""

import hashlib
from dataclasses import dataclass

from fastapi import Response
from pydantic_core import to_json
from starlette.types import Scope

from app import __version__
from app.api.routing.queries import ModelQuery, ParsedQuery, SeedQuery
from app.api.routing.response import Header, RawResponse
from app.cache import Cache, CachedResponse
from app.vae.vae import Vae

_UNSEEDED = b"no-store"
_UNPINNED = b"no-cache"
"""Revalidate on every use: the request did not pin both the model and its version, so another may serve the next."""
_PINNED = b"public, max-age=31536000, immutable"
_PRIVATE = {_UNPINNED: b"private, no-cache", _PINNED: b"private, max-age=31536000, immutable"}
"""Cache-Control of a request with a key: shared caches must not give its response to requests without one."""


@dataclass(frozen=True)
class CachePolicy:
    """How one response may be cached, and whether the client has it already."""

    cache: Cache
    headers: list[Header]
    """Cache-Control and, unless it is None, the ETag."""
    etag: bytes | None
    """None if the response's draws have no seed."""
    is_known: bool
    """Whether the client named this ETag in If-None-Match."""
    wants_none: bool = False
    """Whether If-None-Match is `*`: the client wants no response that could be computed."""

    @classmethod
    def of(cls, cache: Cache, scope: Scope, operation_id: str, vae: Vae, parsed: ParsedQuery) -> "CachePolicy":
        """The policy for the response of one operation of `vae` to one query."""
        query: ModelQuery = parsed.operation
        if isinstance(query, SeedQuery) and query.seed is None:
            return cls(cache, [(b"cache-control", _UNSEEDED)], None, False)
        is_pinned = query.model is not None and query.version is not None
        rest = query.model_dump(exclude={"model", "version"})
        if parsed.writer is not None:
            rest |= parsed.writer.model_dump()
        parts = (vae.digest, vae.execution_provider, __version__, operation_id, to_json(rest).decode())
        etag = b'"%s"' % hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest().encode()
        known = b",".join(value for name, value in scope["headers"] if name == b"if-none-match")
        is_known = any(tag.strip().removeprefix(b"W/") == etag for tag in known.split(b","))
        control = _PINNED if is_pinned else _UNPINNED
        if "vae.key" in scope:
            control = _PRIVATE[control]
        return cls(cache, [(b"cache-control", control), (b"etag", etag)], etag, is_known, known.strip() == b"*")

    def cached_response(self) -> Response | None:
        """The response, if it need not be computed: 304 without a body, or from the cache; else None."""
        if self.is_known:
            return self._answer(Response(status_code=304))
        if self.etag is not None and (cached := self.cache.get(self.etag)) is not None:
            return self._answer(RawResponse(cached.body, cached.headers))
        return None

    def store(self, response: Response) -> Response:
        """Put a computed response into the cache, and return the one to send."""
        if self.etag is not None:
            self.cache.put(self.etag, CachedResponse(bytes(response.body), tuple(response.raw_headers)))
        return self._answer(response)

    def _answer(self, response: Response) -> Response:
        """The response with the headers of this policy, or 304 if the client wants none."""
        if self.wants_none:  # only now: an error must not become 304 (RFC 9110, section 13.2.1)
            response = Response(status_code=304)
        response.raw_headers += self.headers
        return response
