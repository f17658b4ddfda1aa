"""Atomic replacement of a directory."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(target: Path, *, copy: Path | None = None) -> Iterator[Path]:
    """Yield a directory beside `target` to write in. It replaces `target` at the end; an exception removes it.

    It starts empty, or as a copy of the directory `copy`.
    """
    # The leading dot keeps both from being read as versions.
    partial, old = target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.old")
    if old.exists() and not target.exists():  # an earlier run was killed between its two renames
        old.rename(target)
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    if copy is not None:
        shutil.copytree(copy, partial)
    else:
        partial.mkdir()
    try:
        yield partial
        if target.exists():
            target.rename(old)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
