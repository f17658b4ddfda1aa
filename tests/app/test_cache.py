"""Answers in memory, bounded in bytes."""

from hypothesis import given
from hypothesis import strategies as st

from app.cache import Cache, CachedResponse


def answer(size: int) -> CachedResponse:
    return CachedResponse(b"x" * size, ((b"content-type", b"image/png"),))


def test_what_was_put_is_got_until_others_need_the_room() -> None:
    cache = Cache(20_000)
    for number in range(10):
        cache.put(b"%d" % number, answer(1000))
    assert cache.get(b"0") == answer(1000)
    for number in range(10, 20):
        cache.put(b"%d" % number, answer(1000))
        assert cache.get(b"0") is not None  # used all the time
    assert cache.get(b"1") is None  # unused for longest
    assert cache.get(b"19") is not None


def test_what_is_too_large_a_part_is_not_kept() -> None:
    cache = Cache(20_000)
    cache.put(b"large", answer(2_000))
    assert cache.get(b"large") is None
    assert cache.bytes == 0
    assert Cache(0).get(b"any") is None


@given(st.integers(0, 30_000), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3_000)), max_size=60))
def test_it_never_holds_more_than_it_may(most: int, puts: list[tuple[int, int]]) -> None:
    cache = Cache(most)
    for key, size in puts:
        cache.put(b"%d" % key, answer(size))
        kept = [found for key in range(9) if (found := cache.get(b"%d" % key))]
        assert cache.bytes == sum(found.size for found in kept) <= most
        assert len(cache) == len(kept)
