"""A least-recently-used cache of responses, bounded in bytes."""

from collections import OrderedDict
from dataclasses import dataclass

_OVERHEAD_BYTES = 512
"""Estimated memory of a response besides its body, in bytes."""
_MAX_SHARE = 10
"""A response larger than the cache divided by this is not cached: one large image must not evict all small ones."""


@dataclass(frozen=True)
class CachedResponse:
    """A response's body and its ASGI headers."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]

    @property
    def size(self) -> int:
        """Estimated memory in bytes."""
        return len(self.body) + _OVERHEAD_BYTES


class Cache:
    """Responses by key, at most `max_bytes` in total; the least recently used one is evicted first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self.bytes = max_bytes, 0
        self.hits = self.misses = 0
        self._responses: OrderedDict[bytes, CachedResponse] = OrderedDict()

    def __len__(self) -> int:
        return len(self._responses)

    def get(self, key: bytes) -> CachedResponse | None:
        """Return the response of a key; None if it is not cached."""
        response = self._responses.get(key)
        if response is None:
            self.misses += 1
        else:
            self.hits += 1
            self._responses.move_to_end(key)
        return response

    def put(self, key: bytes, response: CachedResponse) -> None:
        """Add a response, unless it would fill too large a share of the cache."""
        if key in self._responses or _MAX_SHARE * response.size > self._max_bytes:
            return
        self._responses[key] = response
        self.bytes += response.size
        while self.bytes > self._max_bytes:
            _, oldest = self._responses.popitem(last=False)
            self.bytes -= oldest.size
