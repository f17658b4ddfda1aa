"""Answers kept in memory, bounded in bytes. Knows bytes only."""

from collections import OrderedDict
from dataclasses import dataclass

_OF_AN_ANSWER = 512
"""Bytes that an answer in memory costs beside its body, about."""
_LARGEST = 10
"""An answer may fill so great a part of the cache, a tenth: one large picture does not drive out all small ones."""


@dataclass(frozen=True)
class CachedResponse:
    """What is kept of a response: its body, and headers as ASGI has them."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return len(self.body) + _OF_AN_ANSWER


class Cache:
    """Answers by key, at most `max_bytes` of them; the one unused for longest goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self.bytes = max_bytes, 0
        self.hits = self.misses = 0
        self._answers: OrderedDict[bytes, CachedResponse] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: bytes) -> CachedResponse | None:
        """The answer that was put there, if it is still kept."""
        answer = self._answers.get(key)
        if answer is None:
            self.misses += 1
        else:
            self.hits += 1
            self._answers.move_to_end(key)
        return answer

    def put(self, key: bytes, answer: CachedResponse) -> None:
        """Keep an answer, unless it is too large a part of the cache."""
        if key in self._answers or _LARGEST * answer.size > self._max_bytes:
            return
        self._answers[key] = answer
        self.bytes += answer.size
        while self.bytes > self._max_bytes:
            _, oldest = self._answers.popitem(last=False)
            self.bytes -= oldest.size
