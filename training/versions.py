"""Versions of the bundles of one model."""

from pathlib import Path

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
