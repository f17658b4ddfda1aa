"""What takes long goes off the event loop."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

INLINE_ELEMENTS = 16_384
"""Draws that take the event loop less time than it would lose by a thread: some tenths of a millisecond."""


async def computed(elements: int, function: Callable[..., Result], *arguments: Any) -> Result:
    """What a function of so many array elements gives, off the event loop where that takes long."""
    if elements <= INLINE_ELEMENTS:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)
