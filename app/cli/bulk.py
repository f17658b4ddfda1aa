"""Many images or latents: sent in batches, several requests at the same time, results joined in order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

import numpy as np
import typer

from app.cli.client import ModelCommand, ServedVersion
from app.cli.files import ReadingOptions, first_shape, read
from app.cli.images import print_json
from app.cli.outputs import Output
from app.cli.terminal import note, progress
from app.codecs.images import Pixels
from app.codecs.npy import write_npz
from app.errors import CommandError

Arrays = dict[str, Any]
"""Arrays by name, and what numpy makes arrays of."""
Item = TypeVar("Item")
Result = TypeVar("Result")

_option = partial(typer.Option, min=1, rich_help_panel="Batches")
_MAX_LISTED = 20
"""Maximum skipped files that an error message lists."""


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Options of the commands that send several requests, and how they send them."""

    batch_size: Annotated[int, _option(help="Images or latents per request.")] = 64
    concurrency: Annotated[int, _option(max=64, help="Number of concurrent requests.")] = 4

    async def map(
        self, label: str, items: Sequence[Item], work: Callable[[int, Sequence[Item]], Awaitable[Result]]
    ) -> list[Result]:
        """Results of `work(index, batch)` in the order of the batches; a progress bar shows `label`.

        Raises:
            VaeError: the first error of `work`; the other requests are cancelled.
        """
        free = asyncio.Semaphore(self.concurrency)
        with progress(label, len(items)) as advance:

            async def run(index: int, batch: Sequence[Item]) -> Result:
                async with free:
                    result = await work(index, batch)
                advance(len(batch))
                return result

            starts = range(0, len(items), self.batch_size)
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(run(i, items[s : s + self.batch_size])) for i, s in enumerate(starts)]
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
        return [task.result() for task in tasks]


@dataclass(frozen=True)
class ImageResults:
    """A server's results for image files: the files' names, arrays `[N, ...]`, and why other files were skipped."""

    names: list[str]
    arrays: Arrays
    skipped: dict[str, str]

    def check_skipped(self) -> None:
        """Raise CommandError with a list of the skipped files, if there are any."""
        if self.skipped:
            lines = [f"\n  {name}: {reason}" for name, reason in self.skipped.items()]
            more = f"\n  and {len(lines) - _MAX_LISTED} more" if len(lines) > _MAX_LISTED else ""
            total = len(self.names) + len(lines)
            raise CommandError(f"{len(lines)} of {total} images were skipped:{''.join(lines[:_MAX_LISTED])}{more}")

    def deliver(self, served: ServedVersion, output: Output, extra: Arrays) -> None:
        """Write an npz file or print JSON of the arrays, `extra`, the files' names and the model.

        Raises:
            CommandError: the file cannot be written, or images were skipped.
        """
        arrays = {**self.arrays, **extra, "files": self.names, **served.query}
        if output.name is None:
            print_json(arrays)
        else:
            output.write(write_npz(arrays))
            count = len(self.names)
            note(f"{output.name}: {count} image{'s' * (count > 1)} by {served.name} {served.version}")
        self.check_skipped()


@dataclass(frozen=True, kw_only=True)
class ImagesCommand(ModelCommand, Batches, ReadingOptions):
    """A command that sends the images of files to a model."""

    async def map_images(
        self,
        label: str,
        names: Sequence[str],
        served: ServedVersion,
        ask: Callable[[int, Pixels], Awaitable[Arrays]],
    ) -> ImageResults:
        """Read image files and join what `ask(index, pixels)` returns for each batch.

        For a model that takes any size, files of another size than the first are skipped.

        Raises:
            CommandError: no file can be read.
        """
        reading = self.reading(served)
        shape = None if reading.width else await asyncio.to_thread(first_shape, names, reading)

        async def work(index: int, batch: Sequence[str]) -> ImageResults:
            images, skipped = await asyncio.to_thread(read, batch, reading, shape)
            read_names = list(images)
            arrays = await ask(index, np.stack([images.pop(name) for name in read_names])) if images else {}
            return ImageResults(read_names, arrays, skipped)

        done = await self.map(label, names, work)
        results = ImageResults(
            [name for part in done for name in part.names],
            _concatenate([part.arrays for part in done if part.names]),
            {name: reason for part in done for name, reason in part.skipped.items()},
        )
        if not results.names:
            results.check_skipped()
        return results


def _concatenate(pieces: list[Arrays]) -> Arrays:
    """Arrays of all rows; a scalar is the same in each piece."""
    first = pieces[0] if pieces else {}
    return {name: np.concatenate([p[name] for p in pieces]) if a.ndim else a for name, a in first.items()}
