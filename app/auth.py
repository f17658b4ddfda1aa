"""Keys: what a request may do. They travel as `Authorization: Bearer`.

Of a key only its sha256 is kept, and digests are compared, in a time that tells nothing of where they differ.
"""

import hashlib
import hmac
from collections.abc import Iterable

from app.errors import Unauthorized


class Keys:
    """The keys of a server."""

    def __init__(self, *, admin: str | None) -> None:
        self._admin = None if admin is None else _digest(admin.encode())

    def check_admin(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Refuse a request, by its headers as ASGI has them, that does not bring the admin key.

        Raises:
            Unauthorized: it brings no key or another one, or the server has none.
        """
        if self._admin is None or not hmac.compare_digest(_digest(_bearer(headers)), self._admin):
            raise Unauthorized("send Authorization: Bearer with the admin key")


def _bearer(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key of a request; empty, which no key is, where it brings none."""
    value = next((value for name, value in headers if name == b"authorization"), b"")
    scheme, _, key = value.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
