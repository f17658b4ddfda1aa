"""Web pages as callers: a browser sends requests for any page that its user opens, from inside the user's network.

Without keys, such a page could use a server that only the user's machine can reach: by requests that need no
permission by CORS, such as a form, or by DNS rebinding, where a name of the page's own site resolves to 127.0.0.1.
"""

import re
from functools import lru_cache
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.middleware.access import is_open
from app.errors import ForeignPage
from app.security.addresses import is_loopback

_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[^:\[\]]+?)\.?)(?::\d+)?", re.IGNORECASE)
_MAX_HOST = 300
"""Maximum bytes of a Host header; names have at most 253."""


class Origins:
    """ASGI middleware for a server without keys: refuses unknown host names, and requests of other origins' pages.

    Open paths are not checked: they show nothing of the server, and probes name any host.
    """

    def __init__(self, app: ASGIApp, hosts: str, is_local: bool, origins: str) -> None:
        """`hosts` are the names that `Host` may have, besides localhost and addresses. Pages of `origins` may call.
        Both are separated by commas, and `*` allows all.

        If there are no `hosts` and the server `is_local`, the names are checked on connections over loopback only.
        """
        self.app, self._is_local = app, is_local
        self._hosts = frozenset(host.strip().lower() for host in hosts.split(",") if host.strip())
        self._origins = frozenset(origin.strip().encode() for origin in origins.split(",") if origin.strip())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        host = headers.get(b"host")
        if host and not _is_known(host, self._hosts) and self._checks_host(scope):  # browsers always name one
            self._refuse(scope, "this host name is unknown to the server: list it in VAE_ALLOWED_HOSTS")
        if b"*" not in self._origins and _is_foreign(scope["method"], headers, self._origins):
            self._refuse(scope, "pages of this origin may not call the server: list it in VAE_CORS_ORIGINS")
        await self.app(scope, receive, send)

    def _checks_host(self, scope: Scope) -> bool:
        if self._hosts:
            return "*" not in self._hosts
        return self._is_local and is_loopback((scope.get("server") or ("",))[0])

    def _refuse(self, scope: Scope, detail: str) -> None:
        if not is_open(scope):
            raise ForeignPage(detail)


def _is_foreign(method: str, headers: dict[bytes, bytes], origins: frozenset[bytes]) -> bool:
    """Whether a page of another origin than the server's and `origins` made a browser send the request.

    A link that a user follows (a GET of a whole document) is none, nor a CORS preflight, which does nothing. Browsers
    send Sec-Fetch-Site over HTTPS and to localhost, and Origin with all but a plain GET.
    See https://www.w3.org/TR/fetch-metadata/.
    """
    origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
    if (origin is None and site is None) or origin in origins or method == "OPTIONS":
        return False
    if site is not None:
        is_link = method == "GET" and headers.get(b"sec-fetch-dest") == b"document"
        return site not in (b"same-origin", b"none") and not is_link
    return origin is not None and origin.partition(b"://")[2] != headers.get(b"host")


def _is_known(host: bytes, hosts: frozenset[str]) -> bool:
    """Whether a Host header names localhost, an address or one of `hosts`: no foreign site has such a name."""
    return len(host) <= _MAX_HOST and _names_one_of(host, hosts)


@lru_cache(256)
def _names_one_of(host: bytes, hosts: frozenset[str]) -> bool:
    found = _HOST.fullmatch(host.decode("latin-1"))
    if found is None:
        return False
    name = (found["ipv6"] or found["name"]).lower()
    try:
        return name == "localhost" or name.endswith(".localhost") or name in hosts or bool(ip_address(name))
    except ValueError:
        return False
