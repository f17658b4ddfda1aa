"""Who may ask what: every request needs a key and keeps to its rate, but for what is open.

The one place where that is decided, by path and before anything is read: what is not listed as open is not.
"""

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.routing.problems import answer
from app.api.service.pages import wants_page
from app.errors import Forbidden, RateExceeded, Unauthorized, VaeError
from app.security.keys import ApiKey, Keys, check_caller
from app.security.rates import Allowance, Rate, Rates, network

OPEN = frozenset({"/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/docs"})
"""Answered without a key, and at any rate: health, and a page that holds nothing of the server's."""
OPEN_BELOW = "/static/"
"""The files of the pages, which ask for a key themselves."""


class Access:
    """ASGI middleware: answers 401 to a request without a key, 429 to one too many; else `vae.key` in its scope is the
    name of its key, and `vae.caller` the key."""

    def __init__(self, app: ASGIApp, keys: Keys, rates: Rates, asks: bool) -> None:
        """`asks` tells whether a key is needed; without, one that is brought is known all the same."""
        self.app, self._keys, self._rates, self._asks = app, keys, rates, asks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_open(scope):
            await self.app(scope, receive, send)
            return
        allowance = None
        try:
            caller = self._identify(scope)
            allowance = self._rates.take(*_counted(scope, caller))
            if allowance is not None and allowance.retry_after is not None:
                raise RateExceeded("more requests than this caller may send in the time", allowance.retry_after)
        except VaeError as error:
            await answer(error, Request(scope))(scope, receive, _marking(send, allowance))
        else:
            await self.app(scope, receive, _marking(send, allowance))

    def _identify(self, scope: Scope) -> ApiKey | None:
        """The request's key, noted in its scope; raises Unauthorized where one is needed and there is none."""
        caller = self._keys.caller(scope["headers"])
        if self._asks:
            check_caller(caller, scope["headers"])
        if caller is not None:
            scope["vae.key"], scope["vae.caller"] = caller.name, caller
        return caller


def check_admin(request: Request) -> None:
    """Refuse a request that does not bring an admin key.

    Raises:
        Unauthorized: it brings no key that the server knows.
        Forbidden: it brings one that is no admin key.
    """
    caller: ApiKey | None = request.scope.get("vae.caller")
    if caller is None:
        raise Unauthorized("send Authorization: Bearer with an admin key")
    if not caller.is_admin:
        raise Forbidden("this key is no admin key")


def _is_open(scope: Scope) -> bool:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    is_page = path == "/" and scope["method"] == "GET" and wants_page(Request(scope))
    return is_page or path in OPEN or path.startswith(OPEN_BELOW)


def _counted(scope: Scope, caller: ApiKey | None) -> tuple[str, Rate | None]:
    """Who a request is counted for, and the rate of its own: its key's name, or else its address."""
    if caller is not None:
        return f"key {caller.name}", caller.rate
    return f"address {network((scope.get('client') or ('',))[0])}", None


def _marking(send: Send, allowance: Allowance | None) -> Send:
    """Sends an answer that tells what its caller has left."""
    if allowance is None:
        return send
    headers = allowance.headers()

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *headers]
        await send(message)

    return marked
