"""Keys: who a request comes from, and what it may do. They travel as `Authorization: Bearer`.

Of a key only its sha256 is kept. A request's key is compared with every one there is, in a time that tells nothing of
where they differ. Keys are long and random (`vaeserve key` makes them), so that a plain hash is enough.
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
_FORM = "NAME:KEY or NAME:sha256:HASH, then perhaps `admin` and `rate=600/minute`; a key has 16 characters or more"
_LOOK_SECONDS = 1.0
"""How long a change of the file may go unnoticed."""


@dataclass(frozen=True)
class Key:
    """One key, which whoever brings it is known by."""

    name: str
    """In logs; several keys may share it while one replaces the other."""
    digest: bytes
    """Its sha256."""
    is_admin: bool = False
    """Whether it opens the management routes, too."""
    rate: Rate | None = None
    """Its own rate, in place of the server's."""


def new_key() -> str:
    """A key that nobody has: 256 random bits, in letters, digits, `-` and `_`."""
    return f"vae_{secrets.token_urlsafe(32)}"


def entry_of(name: str, key: str, *, is_admin: bool = False) -> str:
    """The line of a keys file for `key`, which does not tell it."""
    return f"{name}:sha256:{_digest(key.encode()).hex()}{' admin' if is_admin else ''}"


def read_keys(text: str, source: str) -> list[Key]:
    """The keys of a text: an entry a line; empty lines, and those that begin with `#`, are none.

    Raises:
        StartupError: a line is no entry; the message says which one of `source`, and not what is in it.
    """
    lines = enumerate((line.strip() for line in text.splitlines()), 1)
    return [
        _read_entry(line, f"{source}, line {number}") for number, line in lines if line and not line.startswith("#")
    ]


def _read_entry(text: str, place: str) -> Key:
    entry = _ENTRY.fullmatch(text)
    if entry is None:
        raise StartupError(f"{place}: {_FORM}")
    try:
        rate = read_rate(entry["rate"]) if entry["rate"] else None
    except ValueError as error:
        raise StartupError(f"{place}: {error}") from None
    digest = bytes.fromhex(entry["digest"]) if entry["digest"] else _digest(entry["key"].encode())
    return Key(entry["name"], digest, bool(entry["admin"]), rate)


class KeysFile:
    """A file of keys, which is read again when it changes; while it is broken or gone, the keys stay as they were."""

    def __init__(self, path: Path) -> None:
        """Raises StartupError where it cannot be read."""
        self._path, self._looked = path, time.monotonic()
        self._seen = self._state()
        self._keys = self._parse()

    def read(self) -> list[Key]:
        """Its keys, as they were a second ago or later."""
        now = time.monotonic()
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            if (state := self._state()) != self._seen:
                self._seen = state
                self._renew()
        return self._keys

    def _renew(self) -> None:
        try:
            self._keys = self._parse()
        except StartupError as error:
            logger.error("the keys stay as they are: %s", error)
        else:
            logger.info(
                "VAE_KEYS_FILE has changed: %s", ", ".join(sorted({key.name for key in self._keys})) or "no key"
            )

    def _parse(self) -> list[Key]:
        try:
            text = self._path.read_text("utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise StartupError(f"VAE_KEYS_FILE {self._path} cannot be read: {reason}") from error
        return read_keys(text, f"VAE_KEYS_FILE {self._path}")

    def _state(self) -> tuple[int, ...]:
        """What differs when the file does; nothing where it is gone."""
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_ino, found.st_size


class Keys:
    """The keys of a server: those that it was started with, and those of a file."""

    def __init__(
        self, *, api: str | None = None, several: str | None = None, admin: str | None = None, file: Path | None = None
    ) -> None:
        """`api` and `admin` are keys as they are, `several` entries between commas or spaces.

        Raises:
            StartupError: an entry is none, or the file cannot be read.
        """
        self._given = [
            Key(name, _digest(key.encode()), name == "admin")
            for name, key in (("default", api), ("admin", admin))
            if key is not None
        ]
        self._given += read_keys(re.sub(r"[,\s]+", "\n", several or ""), "VAE_API_KEYS")
        self._file = None if file is None else KeysFile(file)

    def __bool__(self) -> bool:
        """Whether there are any, or may be."""
        return bool(self._given) or self._file is not None

    def caller(self, headers: Iterable[tuple[bytes, bytes]]) -> Key | None:
        """The key that a request brings, by its headers as ASGI has them; None where it brings none of the server's."""
        key, found = _bearer(headers), None
        if not key:
            return None
        brought = _digest(key)
        for known in self._all():  # to the end, wherever it is found
            if hmac.compare_digest(known.digest, brought):
                found = known
        return found

    def _all(self) -> list[Key]:
        return self._given if self._file is None else self._given + self._file.read()


def check_caller(caller: Key | None, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a request without one of the server's keys.

    Raises:
        Unauthorized: it brings none, or another.
    """
    if caller is None:
        raise Unauthorized("this key is none of the server's" if _bearer(headers) else "send Authorization: Bearer")


def _bearer(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key of a request; empty, which no key is, where it brings none."""
    value = next((value for name, value in headers if name == b"authorization"), b"")
    scheme, _, key = value.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
