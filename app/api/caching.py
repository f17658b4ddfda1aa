"""Caching of GET operations: ETag, Cache-Control, 304, and answers kept in memory.

An answer is a function of the bundle, the software and the query, unless its draws have no seed. So its ETag is known
before it is computed, and what was computed once need not be computed again.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from fastapi import Response
from starlette.types import Scope

from app import __version__
from app.api.parameters import ModelQuery, SeedQuery, State

_OF_AN_ANSWER = 512
"""Bytes that an answer in memory costs beside its body, about."""


@dataclass(frozen=True)
class _Answer:
    """What is kept of a response."""

    body: bytes
    headers: list[tuple[bytes, bytes]]


class Cache:
    """Answers by ETag, at most `max_bytes` of them; the one unused for longest goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()

    def get(self, etag: bytes) -> Response | None:
        """The answer that was put there, as a new response."""
        answer = self._answers.get(etag)
        if answer is None:
            return None
        self._answers.move_to_end(etag)
        response = Response()
        response.body, response.raw_headers = answer.body, answer.headers.copy()
        return response

    def put(self, etag: bytes, response: Response) -> None:
        """Keep a response, unless it is larger than a tenth of the cache."""
        body = bytes(response.body)
        if etag in self._answers or 10 * (len(body) + _OF_AN_ANSWER) > self._max_bytes:
            return
        self._answers[etag] = _Answer(body, response.raw_headers.copy())
        self._bytes += len(body) + _OF_AN_ANSWER
        while self._bytes > self._max_bytes:
            _, answer = self._answers.popitem(last=False)
            self._bytes -= len(answer.body) + _OF_AN_ANSWER


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
        seeded = not isinstance(query, SeedQuery) or query.seed is not None
        if not seeded:
            return cls(server.cache, b"no-store", None, False)
        vae = server.catalog.find(query.model, query.version)
        named = query.model is not None and query.version is not None
        rest = query.model_dump_json(exclude={"model", "version"})
        parts = (vae.digest, __version__, operation, rest)
        etag = b'"%s"' % hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest().encode()
        given = next((value for name, value in scope["headers"] if name == b"if-none-match"), b"")
        known = {tag.strip().removeprefix(b"W/") for tag in given.split(b",")}
        control = b"public, max-age=31536000, immutable" if named else b"no-cache"
        return cls(server.cache, control, etag, bool(given) and (etag in known or b"*" in known))

    def remembered(self) -> Response | None:
        """The answer, where it need not be computed: 304 without a body, or from memory."""
        if self.etag is None:
            return None
        if self.is_known:
            response = Response(status_code=304)
            self._mark(response)
            return response
        return self.cache.get(self.etag)

    def remember(self, response: Response) -> None:
        """Mark a computed answer, and keep it."""
        self._mark(response)
        if self.etag is not None:
            self.cache.put(self.etag, response)

    def _mark(self, response: Response) -> None:
        response.raw_headers.append((b"cache-control", self.control))
        if self.etag is not None:
            response.raw_headers.append((b"etag", self.etag))
