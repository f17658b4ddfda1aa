"""A request and its response as ASGI messages; the only place that wraps `receive` and `send`."""

from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Hook = Callable[[Message], Awaitable[None]]
"""Called with the `http.response.start` message, to add headers to it."""


class Exchange:
    """One request and its response. Inner middleware finds it in the scope and adds hooks."""

    __slots__ = ("_headers", "_limit", "_receive", "_send", "bytes_in", "bytes_out", "hooks", "method", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body_bytes: int) -> None:
        self._receive, self._send = receive, send
        self._headers = scope["headers"]  # not the scope, which refers here: a cycle needs the garbage collector
        self._limit = max_body_bytes
        self.method: str = scope.get("vae.method", scope["method"])
        self.status: int | None = None
        """Status of the response; None until it begins."""
        self.bytes_in = self.bytes_out = 0
        self.hooks: list[Hook] = []
        """Called when the response begins, last to first: the innermost middleware's first."""

    @staticmethod
    def of(scope: Scope) -> "Exchange":
        """The exchange of a request."""
        exchange: Exchange = scope["vae.exchange"]
        return exchange

    async def receive(self) -> Message:
        """The next message from the client.

        Raises:
            HTTPException: the body is larger than allowed, by its Content-Length or by the bytes received.
        """
        if self.bytes_in == 0:  # before anything is read, so that a client that waits for 100 Continue sends no body
            for name, value in self._headers:
                if name == b"content-length":
                    self._check(int(value))
        message = await self._receive()
        self.bytes_in += len(message.get("body", b""))
        self._check(self.bytes_in)
        return message

    def _check(self, size: int) -> None:
        if size > self._limit:
            # The rest of the body is not read, so the connection cannot be used again.
            raise HTTPException(413, f"at most {self._limit} bytes", headers={"Connection": "close"})

    async def send(self, message: Message) -> None:
        """Pass a message to the client; without the body, if the method is HEAD."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = list(message.get("headers", ()))
            for hook in reversed(self.hooks):
                await hook(message)
        elif "body" in message:
            if self.method == "HEAD":
                message = {**message, "body": b""}
            self.bytes_out += len(message["body"])
        await self._send(message)


class Exchanges:
    """ASGI middleware, the outermost: `vae.exchange` in the scope of each request is its Exchange.

    Only HTTP requests are passed on.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app, self._max_body_bytes = app, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            exchange = scope["vae.exchange"] = Exchange(scope, receive, send, self._max_body_bytes)
            try:
                await self.app(scope, exchange.receive, exchange.send)
            finally:
                del scope["vae.exchange"]  # `receive` refers to the scope: a cycle would keep the body until collected
