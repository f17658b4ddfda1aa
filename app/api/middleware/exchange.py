"""A request and its response as ASGI messages; the only place that wraps `receive` and `send`."""

import asyncio
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Overloaded, RequestTimeout

Hook = Callable[[Message], None]
"""Called with the `http.response.start` message, to add headers to it."""


UNCOUNTED_BYTES = 2**16
"""Bytes of a body that do not count towards the limit of all bodies together."""
STALLED_SECONDS = 1.0
"""Seconds without a byte after which a body makes room for another one."""


class Bodies:
    """The bytes of all bodies that the server holds, of requests that arrive or are being answered.

    If there is no room for another body, the one that has waited longest for its next bytes is given up.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self.bytes = max_bytes, 0
        self._arriving: dict[Exchange, tuple[float, asyncio.Task[Any]]] = {}
        """The large bodies whose next bytes are awaited: since when, and by which task."""
        self._given_up: set[Exchange] = set()

    async def next(self, exchange: "Exchange", receive: Receive) -> Message:
        """The next message of a body that has already taken room.

        Raises:
            RequestTimeout: the body was given up, because its bytes did not come while others needed the room.
        """
        task = asyncio.current_task()
        assert task is not None
        self._arriving[exchange] = asyncio.get_running_loop().time(), task
        try:
            return await receive()
        except asyncio.CancelledError:
            if exchange not in self._given_up:
                raise
            task.uncancel()
            raise RequestTimeout("the body stopped arriving, and others needed its room") from None
        finally:
            self._arriving.pop(exchange, None)
            self._given_up.discard(exchange)

    def take(self, size: int) -> None:
        """Take room for `size` bytes.

        Raises:
            Overloaded: there is none.
        """
        if self.bytes + size > self._max_bytes:
            self._give_up_one()
            raise Overloaded("the bodies of other requests take all the room")
        self.bytes += size

    def leave(self, size: int) -> None:
        self.bytes -= size

    def _give_up_one(self) -> None:
        """Give up the body that stalls longest; its room is free when its request has been answered."""
        waiting = [(since, exchange, task) for exchange, (since, task) in self._arriving.items()]
        if waiting:
            since, exchange, task = min(waiting, key=itemgetter(0))
            if since + STALLED_SECONDS <= asyncio.get_running_loop().time():
                del self._arriving[exchange]
                self._given_up.add(exchange)
                task.cancel()


class Exchange:
    """One request and its response. Inner middleware finds it in the scope and adds hooks."""

    __slots__ = (
        "_bodies",
        "_headers",
        "_held",
        "_is_arriving",
        "_limit",
        "_receive",
        "_send",
        "bytes_in",
        "bytes_out",
        "hooks",
        "method",
        "status",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_body_bytes: int, bodies: Bodies) -> None:
        self._receive, self._send = receive, send
        self._headers = scope["headers"]  # not the scope, which refers here: a cycle needs the garbage collector
        self._limit, self._bodies, self._held, self._is_arriving = max_body_bytes, bodies, 0, True
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
            Overloaded, RequestTimeout: there is no room for it, or it was given up for another one.
        """
        if self.bytes_in == 0:  # before anything is read, so that a client that waits for 100 Continue sends no body
            for name, value in self._headers:
                if name == b"content-length":
                    self._check(int(value))
        is_counted = self._held and self._is_arriving
        message = await (self._bodies.next(self, self._receive) if is_counted else self._receive())
        self._is_arriving = message.get("more_body", False)
        self.bytes_in += len(message.get("body", b""))
        self._check(self.bytes_in)
        if self.bytes_in > UNCOUNTED_BYTES:
            self._bodies.take(self.bytes_in - self._held)
            self._held = self.bytes_in
        return message

    def end(self) -> None:
        """Give back what the body has taken."""
        self._bodies.leave(self._held)

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
                hook(message)
        elif "body" in message:
            if self.method == "HEAD":
                message = {**message, "body": b""}
            self.bytes_out += len(message["body"])
        await self._send(message)


class Exchanges:
    """ASGI middleware, the outermost: `vae.exchange` in the scope of each request is its Exchange.

    Only HTTP requests are passed on.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_held_bytes: int) -> None:
        """`max_held_bytes` is for all bodies together."""
        self.app, self._max_body_bytes, self._bodies = app, max_body_bytes, Bodies(max_held_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            exchange = scope["vae.exchange"] = Exchange(scope, receive, send, self._max_body_bytes, self._bodies)
            try:
                await self.app(scope, exchange.receive, exchange.send)
            finally:
                exchange.end()
                del scope["vae.exchange"]  # `receive` refers to the scope: a cycle would keep the body until collected
