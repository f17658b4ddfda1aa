"""The files through which processes share their metrics, which never need more room than the disk has.

prometheus-client maps files that are longer than what the disk has set aside for them. Where it is full, writing to
such a file ends the process (SIGBUS). Here a file is as long as what was written to it; a value that there is no room
for is kept in the process, and shared as soon as there is.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

logger = logging.getLogger(__name__)

FIRST_BYTES = 65_536
"""Length of a new file; one that is too short becomes twice as long."""
_LONGEST_ENTRY = 32
"""Bytes that an entry takes beside its key, at most."""


class SharedValues(MmapedDict):
    """The values of one process and kind, by key, each with a timestamp."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        assert not read_mode
        self._path, self._kept = Path(filename), dict[str, tuple[float, float]]()
        self._f: Any = None  # opened when there is a value, and then by the library
        self._positions: dict[str, int] = {}

    def read_value(self, key: str) -> tuple[float, float]:
        """A value and its timestamp; 0 where it is new."""
        try:
            value: tuple[float, float] = super().read_value(key)  # type: ignore[no-untyped-call]
        except OSError as error:
            self._keep(key, (0.0, 0.0), error)
            return 0.0, 0.0
        return value

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Share a value."""
        try:
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        except OSError as error:
            self._keep(key, (value, timestamp), error)

    def _keep(self, key: str, value: tuple[float, float], error: OSError) -> None:
        if not self._kept:
            logger.error("%s: metrics of this process are missing: %s", self._path, error.strerror)
        self._kept[key] = value

    def _init_value(self, key: str) -> None:
        """Make an entry; raises OSError where there is no room for it."""
        if self._f is None:
            allocate(self._path, FIRST_BYTES)
            super().__init__(str(self._path))  # type: ignore[no-untyped-call]
        if self._used + len(key.encode()) + _LONGEST_ENTRY > self._capacity:
            with self._path.open("r+b") as file:
                file.seek(self._capacity)
                file.write(bytes(self._capacity))
        super()._init_value(key)  # type: ignore[no-untyped-call]
        self._kept.pop(key, None)


def allocate(path: Path, size: int) -> None:
    """Make a file of zeros, whole at once; raises OSError, and leaves nothing, where there is no room for it."""
    part = path.with_suffix(".part")
    try:
        part.write_bytes(bytes(size))
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


vars(values)[MmapedDict.__name__] = SharedValues  # which the library makes by this name
