"""The files through which processes share their metrics, safe on a full disk.

This replaces a class inside prometheus-client: the library grows its memory-mapped files without reserving the disk
space, so that on a full disk the next write ends the process with SIGBUS, and it has no parameter for the class.
Here a file only has space that is written. A value without space stays in the process until there is space.
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
"""Bytes of a new file; a file that is full doubles in size."""
_MAX_OVERHEAD = 32
"""Maximum bytes of an entry beside its key."""


class SharedValues(MmapedDict):
    """The values of one process and type of metric, by key, each with a timestamp."""

    def __init__(self, filename: str) -> None:
        self._path, self._missing = Path(filename), set[str]()
        self._f: Any = None  # the library opens it, when there is a first value
        self._positions: dict[str, int] = {}

    def read_value(self, key: str) -> tuple[float, float]:
        """A value and its timestamp; both are 0 if the key is new."""
        try:
            value: tuple[float, float] = super().read_value(key)  # type: ignore[no-untyped-call]
        except OSError as error:
            self._miss(key, error)
            return 0.0, 0.0
        return value

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        try:
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        except OSError as error:
            self._miss(key, error)

    def _miss(self, key: str, error: OSError) -> None:
        if not self._missing:
            logger.error("%s: metrics of this process are missing: %s", self._path, error.strerror)
        self._missing.add(key)

    def _init_value(self, key: str) -> None:
        """Add an entry; raises OSError if the disk has no room for it."""
        if self._f is None:
            allocate(self._path, FIRST_BYTES)
            super().__init__(str(self._path))  # type: ignore[no-untyped-call]
        if self._used + len(key.encode()) + _MAX_OVERHEAD > self._capacity:
            with self._path.open("r+b") as file:
                file.seek(self._capacity)
                file.write(bytes(self._capacity))
        super()._init_value(key)  # type: ignore[no-untyped-call]
        self._missing.discard(key)


def allocate(path: Path, size: int) -> None:
    """Create a file of `size` zero bytes; raises OSError, and leaves no file, if the disk has no room for it."""
    part = path.with_suffix(".part")
    try:
        part.write_bytes(bytes(size))
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink()
        raise


vars(values)[MmapedDict.__name__] = SharedValues  # the library looks its class up by this name
