"""Many pictures or latents: sent a batch at a time, several requests at once, put together in order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.cli.files import Batch, first_shape, read
from app.cli.options import Bulk
from app.cli.terminal import progress
from app.codecs.images import Pixels, Reading
from app.errors import CommandError

Arrays = dict[str, NDArray[Any]]
Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_TOLD = 20


async def in_batches(
    what: str, items: Sequence[Item], bulk: Bulk, work: Callable[[int, Sequence[Item]], Awaitable[Result]]
) -> list[Result]:
    """What `work` gives of each batch and its number, in their order; some of it at the same time.

    No more batches are under way than that, so that memory is bounded by the results.
    """
    batches = [items[first : first + bulk.batch_size] for first in range(0, len(items), bulk.batch_size)]
    results: dict[int, Result] = {}
    waiting = iter(enumerate(batches))
    with progress(what, len(items)) as advance:

        async def worker() -> None:
            for index, batch in waiting:
                results[index] = await work(index, batch)
                advance(len(batch))

        tasks = [asyncio.create_task(worker()) for _ in range(min(bulk.concurrency, len(batches)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return [results[index] for index in range(len(batches))]


@dataclass(frozen=True)
class Answered:
    """What the server made of pictures: their names, arrays `[N, ...]`, and why others were skipped."""

    names: list[str]
    arrays: Arrays
    skipped: dict[str, str]

    def complain(self) -> None:
        """Raises CommandError where pictures were skipped; it lists them."""
        if self.skipped:
            total = len(self.names) + len(self.skipped)
            told = [f"\n  {name}: {why}" for name, why in list(self.skipped.items())[:_MOST_TOLD]]
            rest = len(self.skipped) - len(told)
            more = f"\n  and {rest} more" if rest else ""
            raise CommandError(f"{len(self.skipped)} of {total} pictures were skipped:{''.join(told)}{more}")


async def over_pictures(
    what: str,
    names: Sequence[str],
    reading: Reading,
    bulk: Bulk,
    ask: Callable[[int, Pixels], Awaitable[Arrays]],
) -> Answered:
    """What `ask` gives of each batch of pictures and its number, put together. Where pictures keep their size, those of
    another than the first are skipped.

    Raises:
        CommandError: none of them can be read.
    """
    shape = None if reading.width else await asyncio.to_thread(first_shape, names, reading)

    async def work(index: int, some: Sequence[str]) -> tuple[Batch, Arrays]:
        batch = await asyncio.to_thread(read, some, reading, shape)
        arrays = await ask(index, batch.pixels) if batch.names else {}
        return Batch(batch.pixels[:0], batch.names, batch.skipped), arrays

    done = await in_batches(what, names, bulk, work)
    answered = Answered(
        [name for batch, _ in done for name in batch.names],
        _joined([arrays for _, arrays in done if arrays]),
        {name: why for batch, _ in done for name, why in batch.skipped.items()},
    )
    if not answered.names:
        answered.complain()
    return answered


def _joined(pieces: list[Arrays]) -> Arrays:
    """Arrays of all rows; what has no axis is the same in each piece."""
    first = pieces[0] if pieces else {}
    return {name: np.concatenate([p[name] for p in pieces]) if a.ndim else a for name, a in first.items()}
