"""Runs long computations off the event loop."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

INLINE_ELEMENTS = 16_384
"""Maximum array elements computed on the event loop: a few tenths of a millisecond, less than a thread would cost."""


async def computed(elements: int, function: Callable[..., Result], *arguments: Any) -> Result:
    """Return `function(*arguments)`, computed in a thread if it makes more than `INLINE_ELEMENTS` array elements."""
    if elements <= INLINE_ELEMENTS:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)
