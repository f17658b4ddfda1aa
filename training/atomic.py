"""Atomic replacement of a directory."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(target: Path, *, copy: Path | None = None) -> Iterator[Path]:
    """Yield a new directory beside `target` to write in: empty, or a copy of the directory `copy`.

    At the end it replaces `target`; after an exception it is removed.
    """
    # The leading dot keeps both from being read as versions.
    partial, old = target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():  # an earlier run was killed between its two renames
        old.rename(target)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        if copy is not None:
            shutil.copytree(copy, partial)
        else:
            partial.mkdir()
        yield partial
        if target.exists():
            target.rename(old)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
