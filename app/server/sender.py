"""Sends the response of one request: head and body in one write."""

import asyncio
from collections.abc import Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_MAX_COPIED_BYTES = 65_536
"""Maximum bytes of a body that is copied: for larger ones, writing a list of two buffers is cheaper."""

_MAX_ENCRYPTED_BYTES = 2**18
"""Maximum bytes that are encrypted at a time, in a fraction of a millisecond; nothing else happens meanwhile."""


class ResponseSender:
    """ASGI middleware of one request: writes head and body together, if the body is one message.

    uvicorn writes them separately: two system calls, two packets, and a client that is woken twice. It also checks each
    header with two regular expressions.
    """

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app, self._cycle = app, cycle
        self._start: Message | None = None
        """The start of the response, until the first part of its body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._send, self._is_encrypted = send, scope["scheme"] == "https"
        await self._app(scope, receive, self._join)

    async def _join(self, message: Message) -> None:
        """Pass a message to the client; the start of the response waits for its body."""
        if message["type"] == "http.response.start" and self._start is None:
            self._start = message
            return
        start, self._start = self._start, None
        if start is not None:
            if not message.get("more_body", False) and self._write(start, message.get("body", b"")):
                return
            await self._send(start)
        if self._is_encrypted and message["type"] == "http.response.body":
            for part in _parts(message):
                await self._send(part)
                await asyncio.sleep(0)
        else:
            await self._send(message)

    def _write(self, start: Message, body: bytes) -> bool:
        """Write a response of known length on a connection that stays open; returns False for any other."""
        cycle = self._cycle
        headers = [*cycle.default_headers, *start["headers"]]
        named = dict(headers)
        if not cycle.keep_alive or cycle.disconnected or cycle.flow.write_paused or cycle.response_started:
            return False
        if self._is_encrypted and len(body) > _MAX_ENCRYPTED_BYTES:
            return False
        if named.get(b"content-length") != b"%d" % len(body) or b"connection" in named or b"transfer-encoding" in named:
            return False
        head = STATUS_LINE[start["status"]] + b"\r\n".join(map(b": ".join, headers)) + b"\r\n\r\n"
        line_ends = len(headers) + 2
        if head.count(b"\r") != line_ends or head.count(b"\n") != line_ends or b"\0" in head:
            return False  # uvicorn refuses the header
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        if len(body) <= _MAX_COPIED_BYTES:
            cycle.transport.write(head + body)
        else:
            cycle.transport.writelines((head, body))
        cycle.message_event.set()
        cycle.on_response()
        return True


def _parts(message: Message) -> Iterator[Message]:
    """A message of a body as messages of at most `_MAX_ENCRYPTED_BYTES`."""
    body, more = memoryview(message.get("body", b"")), message.get("more_body", False)
    for start in range(0, len(body) or 1, _MAX_ENCRYPTED_BYTES):
        stop = start + _MAX_ENCRYPTED_BYTES
        yield {"type": message["type"], "body": body[start:stop], "more_body": more or stop < len(body)}
