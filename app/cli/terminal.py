"""Terminal output: tables, progress bars, drawn images; a pipe gets plain text only."""

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import numpy as np
from rich.color import Color
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.segment import Segment, Segments
from rich.style import Style
from rich.table import Table
from rich.text import Text

from app.codecs.images import Pixels

_PIPE_WIDTH = 200
"""Columns of a table in a pipe: wide enough that no name is cut."""


def table(rows: list[dict[str, str]], numbers: Collection[str] = (), title: str | None = None) -> None:
    """Print rows of cells by column, the columns of `numbers` flush right; without names of columns, no header."""
    columns = rows[0] if rows else {}
    shown = Table(title=title, box=None, pad_edge=False, show_header=any(map(str.strip, columns)), title_justify="left")
    for name in columns:
        shown.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        shown.add_row(*map(Text, row.values()))
    _stdout().print(shown)


def note(text: str) -> None:
    """Print a line on stderr, beside the output."""
    print(text, file=sys.stderr, flush=True)


def drawing_width() -> int:
    """Columns of the terminal; 0 if stdout is not a terminal with colors."""
    console = _stdout()
    return console.width if console.is_terminal and console.color_system and not console.no_color else 0


def draw(pixels: Pixels) -> None:
    """Draw `[H, W, C]`, downsampled to the terminal's width: each character shows two pixels, one above the other."""
    console = _stdout()
    step = -(-pixels.shape[1] // console.width)
    pixels = np.broadcast_to(pixels[::step, ::step], (*pixels[::step, ::step].shape[:2], 3))
    pixels = np.concatenate([pixels, np.zeros((len(pixels) % 2, *pixels.shape[1:]), np.uint8)])
    segments = []
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
            segments.append(Segment("▀", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below))))
        segments.append(Segment.line())
    console.print(Segments(segments), end="")


class _RateColumn(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="progress.data.speed")


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on stderr if that is a terminal; yields a function that adds to the items done."""
    console = Console(stderr=True)
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), _RateColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def _stdout() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
