"""Sizes while streaming: a request body is counted as it arrives and stopped at the limit."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """ASGI middleware: answers 413 to a body over `max_bytes`, as soon as its length is announced or exceeded."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        announced = int(headers.get(b"content-length", b"0"))
        if announced <= self.max_bytes and b"transfer-encoding" not in headers:
            await self.app(scope, receive, send)  # the server takes no more than was announced
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            self._check(announced)  # before anything is read, so that a client that asks need not send
            message = await receive()
            received += len(message.get("body", b""))
            self._check(received)
            return message

        await self.app(scope, counted, send)

    def _check(self, size: int) -> None:
        if size > self.max_bytes:
            # The rest of the body is not read: the connection cannot be used again.
            raise HTTPException(413, f"at most {self.max_bytes} bytes", headers={"Connection": "close"})
