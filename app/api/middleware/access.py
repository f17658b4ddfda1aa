"""Access: checks the key and the rate of every request, except on the open paths.

This is the only place that decides it, by path and before the body is read.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.middleware.exchange import Exchange
from app.api.routing.negotiation import wants_page
from app.api.routing.problems import path_below_root
from app.api.routing.state import HEALTH_PATHS
from app.errors import RateExceeded
from app.security.addresses import network
from app.security.keys import ApiKey, Keys
from app.security.rates import Rates

OPEN = HEALTH_PATHS | {"/docs"}
"""Paths without key and rate limit: health, and a page that shows no data of the server."""
OPEN_BELOW = "/static/"
"""Prefix of the pages' files, which are open too: a page asks its user for the key."""


class Access:
    """ASGI middleware: refuses a request without a known key, or above the rate of its caller.

    If a request has a known key, `vae.caller` in its scope is the key, and `vae.key` the key's name.
    """

    def __init__(self, app: ASGIApp, keys: Keys, rates: Rates, asks: bool) -> None:
        """`asks` says whether a key is required; if not, a known key is still recognized."""
        self.app, self._keys, self._rates, self._asks = app, keys, rates, asks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not is_open(scope):
            caller = self._keys.caller(scope["headers"], is_required=self._asks)
            if caller is not None:
                scope["vae.key"], scope["vae.caller"] = caller.name, caller
            self._take(scope, caller)
        await self.app(scope, receive, send)

    def _take(self, scope: Scope, caller: ApiKey | None) -> None:
        """Count the request for its key or else its address, and add the rate limit to the response's headers; raises
        RateExceeded."""
        if caller is None:
            address = (scope.get("client") or ("",))[0]
            allowance = self._rates.take(f"address {network(address)}", None)
        else:
            allowance = self._rates.take(f"key {caller.name}", caller.rate)
        if allowance is None:
            return
        headers = allowance.headers()

        def mark(start: Message) -> None:
            start["headers"] += headers

        Exchange.of(scope).hooks.append(mark)
        if allowance.retry_after is not None:
            raise RateExceeded("more requests than the rate of this caller allows", allowance.retry_after)


def is_open(scope: Scope) -> bool:
    """Whether a request needs no key, and shows nothing of the server."""
    path = path_below_root(scope)
    is_page = path == "/" and scope["method"] == "GET" and wants_page(scope)
    return is_page or path in OPEN or path.startswith(OPEN_BELOW)
