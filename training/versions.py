"""Versions of the bundles of one model."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout

from app.errors import CommandError


def choose_version(folder: Path, version: int | None, *, replace: bool) -> int:
    """Return the version of a new bundle in `folder`: `version`, or if None one more than the newest there.

    Raises:
        CommandError: the version exists, and `replace` is false.
    """
    existing = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]
    if version in existing and not replace:
        raise CommandError(f"{folder / str(version)} is there: pass another --version, or --replace")
    return version or max(existing, default=0) + 1


@contextmanager
def reserve_version(folder: Path, version: int | None, *, replace: bool) -> Iterator[int]:
    """Yield the version of a new bundle as `choose_version` does, but none that another process has reserved.

    Inside, no other process gets this version. Folders that are empty at the end are removed if they were made here.

    Raises:
        CommandError: the version exists and `replace` is false, or another process has reserved it.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        first = choose_version(folder, version, replace=replace)
        for chosen in count(first) if version is None else [first]:
            lock = FileLock(folder / f".{chosen}.lock", blocking=False)
            try:
                lock.acquire()
            except Timeout:
                continue
            try:
                if version is not None or not (folder / str(chosen)).exists():
                    yield choose_version(folder, chosen, replace=replace)
                    return
            finally:
                Path(lock.lock_file).unlink(missing_ok=True)
                lock.release()
        raise CommandError(f"another process is writing {folder / str(version)}: wait, or pass another --version")
    finally:
        for path in made:
            with suppress(OSError):  # not empty
                path.rmdir()
