"""API keys: they identify a caller and its rights. A request carries one as `Authorization: Bearer`.

Only the sha256 of a key is kept; keys are long and random (`vaeserve key` makes them), so that a plain hash suffices. A
request's key is compared with every known key in constant time.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from app.errors import StartupError, Unauthorized
from app.security.rates import Rate, read_rate

logger = logging.getLogger(__name__)

_ENTRY = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,63}):(?:sha256:(?P<digest>[0-9A-Fa-f]{64})|(?!sha256:)(?P<key>[!-~]{16,}))"
    r"(?P<admin>\s+admin)?(?:\s+rate=(?P<rate>\S+))?"
)
_FORMAT = "NAME:KEY or NAME:sha256:HASH, then perhaps `admin` and `rate=600/minute`; a key has 16 characters or more"
_CHECK_SECONDS = 1.0
"""Minimum seconds between two checks of the keys file. Checks at every request would read it while it is written."""


@dataclass(frozen=True)
class ApiKey:
    """One key that the server accepts."""

    name: str
    """The caller's name in logs; two keys may share it while one replaces the other."""
    digest: bytes
    """The sha256 of the key."""
    is_admin: bool = False
    """Whether the key opens the management routes, too."""
    rate: Rate | None = None
    """The key's own rate limit; None for the server's."""


def new_key() -> str:
    """Return a random key of 256 bits, in letters, digits, `-` and `_`."""
    return f"vae_{secrets.token_urlsafe(32)}"


def entry_of(name: str, key: str, *, is_admin: bool = False) -> str:
    """Return the line for `key` in a keys file, with its hash only."""
    return f"{name}:sha256:{_digest(key.encode()).hex()}{' admin' if is_admin else ''}"


def read_keys(text: str, source: str) -> list[ApiKey]:
    """Parse one entry a line; empty lines and lines that begin with `#` are skipped.

    Raises:
        StartupError: a line is malformed; the message names `source` and the line's number, not its content.
    """
    lines = enumerate((line.strip() for line in text.splitlines()), 1)
    return [
        _read_entry(line, f"{source}, line {number}") for number, line in lines if line and not line.startswith("#")
    ]


def _read_entry(text: str, place: str) -> ApiKey:
    entry = _ENTRY.fullmatch(text)
    if entry is None:
        raise StartupError(f"{place}: {_FORMAT}")
    try:
        rate = read_rate(entry["rate"]) if entry["rate"] else None
    except ValueError as error:
        raise StartupError(f"{place}: {error}") from None
    digest = bytes.fromhex(entry["digest"]) if entry["digest"] else _digest(entry["key"].encode())
    return ApiKey(entry["name"], digest, bool(entry["admin"]), rate)


class KeysFile:
    """A file of keys, read again when it changes; while it is broken or missing, the last keys stay valid."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            StartupError: the file cannot be read, or a line is malformed.
        """
        self._path, self._checked = path, time.monotonic()
        self._versions = file_versions(path)
        self._keys = self._parse()

    def read(self) -> list[ApiKey]:
        """Return the keys, at most a second behind the file."""
        now = time.monotonic()
        if now - self._checked > _CHECK_SECONDS:
            self._checked = now
            if (versions := file_versions(self._path)) != self._versions:
                self._versions = versions
                self._reload()
        return self._keys

    def _reload(self) -> None:
        try:
            self._keys = self._parse()
        except StartupError as error:
            logger.error("the keys stay as they are: %s", error)
        else:
            names = ", ".join(sorted({key.name for key in self._keys}))
            logger.info("VAE_KEYS_FILE has changed: %s", names or "no key")

    def _parse(self) -> list[ApiKey]:
        try:
            text = self._path.read_text("utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise StartupError(f"VAE_KEYS_FILE {self._path} cannot be read: {reason}") from error
        return read_keys(text, f"VAE_KEYS_FILE {self._path}")


def file_versions(*paths: Path | None) -> list[tuple[int, ...]]:
    """Return modification time, inode and size of each file, which change if it changes; empty if a file is missing."""
    try:
        return [(found.st_mtime_ns, found.st_ino, found.st_size) for found in map(os.stat, filter(None, paths))]
    except OSError:
        return []


class Keys:
    """All keys that a server accepts: from its settings and from the keys file."""

    def __init__(
        self, *, api: str | None = None, entries: str | None = None, admin: str | None = None, file: Path | None = None
    ) -> None:
        """`api` and `admin` are plain keys; `entries` are `NAME:KEY` entries between commas or spaces.

        Raises:
            StartupError: an entry is malformed, or the file cannot be read.
        """
        self._fixed = [
            ApiKey(name, _digest(key.encode()), name == "admin")
            for name, key in (("default", api), ("admin", admin))
            if key is not None
        ]
        self._fixed += read_keys(re.sub(r"[,\s]+", "\n", entries or ""), "VAE_API_KEYS")
        self._file = None if file is None else KeysFile(file)

    def __bool__(self) -> bool:
        """Whether there are keys, or can be: a keys file may get some."""
        return bool(self._fixed) or self._file is not None

    def caller(self, headers: Iterable[tuple[bytes, bytes]], *, is_required: bool = False) -> ApiKey | None:
        """Return the key that a request carries; None if it carries none, or an unknown one.

        Raises:
            Unauthorized: a known key `is_required`, and the request carries none.
        """
        value = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, rest = value.partition(b" ")
        key, found = rest.strip() if scheme.lower() == b"bearer" else b"", None
        if key:
            digest = _digest(key)
            for known in self._fixed if self._file is None else self._fixed + self._file.read():
                if hmac.compare_digest(known.digest, digest):
                    found = known  # no break: the time must not reveal which key matched
        if is_required and found is None:
            raise Unauthorized("this key is unknown to the server" if key else "send Authorization: Bearer")
        return found


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
