"""Caching of GET operations: ETag, Cache-Control, 304, and answers that are in memory.

An answer is a function of the bundle, the software and the query, unless its draws have no seed. So its ETag is known
before it is computed, and what was computed once need not be computed again.
"""

import hashlib
from dataclasses import dataclass

from fastapi import Response
from starlette.types import Scope

from app import __version__
from app.api.routing.queries import ModelQuery, SeedQuery
from app.api.routing.response import Raw
from app.api.routing.state import State
from app.cache import Cache, CachedResponse

_UNSEEDED = b"no-store"
_UNNAMED = b"no-cache"
"""Kept, but asked for again each time: another default model or a newer version may answer then."""
_FOREVER = b"public, max-age=31536000, immutable"
_PRIVATE = {_UNSEEDED: _UNSEEDED, _UNNAMED: b"private, no-cache", _FOREVER: b"private, max-age=31536000, immutable"}
"""The same of what was answered to a key: it is nobody else's, who may have none."""


@dataclass(frozen=True)
class Freshness:
    """How one answer may be kept, and whether its client has it."""

    cache: Cache
    control: bytes
    etag: bytes | None
    """None where the answer's draws have no seed."""
    is_known: bool
    """Whether the client named this ETag in If-None-Match."""

    @classmethod
    def of(cls, server: State, scope: Scope, operation: str, query: ModelQuery) -> "Freshness":
        """Of the answer of `operation` to `query`.

        Raises:
            UnknownModel: there is none such.
        """
        if isinstance(query, SeedQuery) and query.seed is None:
            return cls(server.cache, _UNSEEDED, None, False)
        vae = server.catalog.find(query.model, query.version).for_request(scope["vae.timing"])
        is_named = query.model is not None and query.version is not None
        rest = query.model_dump_json(exclude={"model", "version"})
        parts = (vae.digest, vae.execution_provider, __version__, operation, rest)
        etag = b'"%s"' % hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest().encode()
        known = b",".join(value for name, value in scope["headers"] if name == b"if-none-match").split(b",")
        is_known = any(tag.strip().removeprefix(b"W/") == etag for tag in known)
        control = _FOREVER if is_named else _UNNAMED
        return cls(server.cache, _PRIVATE[control] if "vae.key" in scope else control, etag, is_known)

    def remembered(self) -> Response | None:
        """The answer, where it need not be computed: 304 without a body, or from memory."""
        if self.etag is None:
            return None
        response: Response
        if self.is_known:
            response = Response(status_code=304)
        elif (answer := self.cache.get(self.etag)) is not None:
            response = Raw(answer.body, answer.headers)
        else:
            return None
        self._mark(response)
        return response

    def remember(self, response: Response) -> None:
        """Keep a computed answer, and mark it."""
        if self.etag is not None:
            self.cache.put(self.etag, CachedResponse(bytes(response.body), tuple(response.raw_headers)))
        self._mark(response)

    def _mark(self, response: Response) -> None:
        response.raw_headers.append((b"cache-control", self.control))
        if self.etag is not None:
            response.raw_headers.append((b"etag", self.etag))
