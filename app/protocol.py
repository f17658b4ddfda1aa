"""uvicorn's HTTP protocol, but for one thing: the head of an answer leaves together with its body.

uvicorn writes them one after the other. On a connection that has nothing to wait for, that is two system calls, two
packets, and a client that is woken twice.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HEAD = b"HTTP/1.1 "
_INTERIM = b"HTTP/1.1 1"
"""100 Continue: the client waits for it, and nothing follows."""
_SMALL = 65_536
"""Bytes up to which copying is cheaper than a list of two pieces."""


class JoiningTransport:
    """A transport that keeps the head of an answer until something follows it, or it is closed."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._head = transport, b""
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info

    def write(self, data: bytes) -> None:
        """Write `data`, or keep it if it is a head."""
        head, self._head = self._head, b""
        if not head and data.startswith(_HEAD) and not data.startswith(_INTERIM):
            self._head = data
        elif len(data) <= _SMALL:
            self._transport.write(head + data)
        else:
            self._transport.writelines((head, data))

    def close(self) -> None:
        """Write what is kept, and close."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(HttpToolsProtocol):
    """HTTP/1.1 over a transport that joins heads to bodies."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection."""
        super().connection_made(cast(asyncio.Transport, JoiningTransport(transport)))
