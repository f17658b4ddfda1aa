"""The connections of a server process: which of them have a place, and which one makes room for another."""

import asyncio
from collections import defaultdict, deque
from functools import lru_cache
from heapq import nsmallest
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from operator import itemgetter
from typing import Protocol

from uvicorn.server import ServerState

from app.errors import Overloaded, VaeError
from app.security.addresses import network
from app.settings import Settings

MAX_PLACELESS = 128
"""Maximum connections without a place; above it, the oldest one is closed."""
MIN_IDLE_SECONDS = 1.0
"""Seconds after which an idle connection may be closed; the first request of a younger one is often on its way."""

_FOUND_AT_ONCE = 32
"""Maximum idle connections that are remembered from one search."""

Refusal = tuple[type[VaeError], str, str]
"""A problem, its detail, and the reason under which metrics count it."""

_TOO_MANY = Overloaded, "too many connections", "too-many-connections"
_TOO_MANY_OF_ADDRESS = Overloaded, "too many connections from this address", "too-many-connections-of-address"
_SHARED = ""
"""The address of every client whose own address is unknown."""


class Connection(Protocol):
    """A connection, as its server keeps count of it."""

    client: tuple[str, int] | None

    @property
    def idle_since(self) -> float | None:
        """Time of the event loop at which the connection became idle; None if a request arrives or is answered."""

    def make_room(self) -> None:
        """Close the connection, which is idle."""

    def turn_away(self) -> None:
        """Refuse the connection if that is not done yet, and close it without lingering."""


class Connections(ServerState):
    """uvicorn's state of a server, which all its connections share, with a bounded number of places.

    A connection without a place gets an answer only if it asks for the server's health.
    """

    def __init__(self) -> None:
        super().__init__()
        self._placed: dict[Connection, str] = {}
        self._all = _Group()
        self._of_address: defaultdict[str, _Group] = defaultdict(_Group)
        self._placeless: dict[Connection, None] = {}

    def admit(self, connection: Connection, limits: Settings) -> Refusal | None:
        """Give a connection a place, or return why there is none.

        If there is none left, the connection that has been idle longest is closed: of all connections or, if its own
        address has too many, of that address.
        """
        address = client_address(connection.client, limits.trusted_proxies)
        refusal = self._refusal(address, limits)
        if refusal is None:
            self._placed[connection] = address
            self._all.members.add(connection)
            self._of_address[address].members.add(connection)
        else:
            self._placeless[connection] = None
            if len(self._placeless) > MAX_PLACELESS:
                oldest = next(iter(self._placeless))
                self.release(oldest)
                oldest.turn_away()
        return refusal

    def release(self, connection: Connection) -> None:
        """Forget a connection, which may have a place or none."""
        self._placeless.pop(connection, None)
        address = self._placed.pop(connection, None)
        if address is not None:
            self._all.members.discard(connection)
            self._of_address[address].members.discard(connection)
            if not self._of_address[address].members:
                del self._of_address[address]

    def _refusal(self, address: str, limits: Settings) -> Refusal | None:
        """Return why a client gets no place, or None if it gets one, which may have been an idle connection's."""
        is_known = address in self._of_address and address != _SHARED
        if is_known and not self._has_room(self._of_address[address], limits.max_connections_per_address):
            return _TOO_MANY_OF_ADDRESS
        return None if self._has_room(self._all, limits.max_connections) else _TOO_MANY

    def _has_room(self, group: "_Group", limit: int) -> bool:
        if len(group.members) < limit:
            return True
        if (idle := group.longest_idle()) is not None:
            self.release(idle)
            idle.make_room()
        return idle is not None


class _Group:
    """Connections that share a limit."""

    def __init__(self) -> None:
        self.members: set[Connection] = set()
        self._found: deque[tuple[float, Connection]] = deque()
        self._next_search = 0.0

    def longest_idle(self) -> Connection | None:
        """Return the connection that has been idle longest, if for `MIN_IDLE_SECONDS` at least.

        One search finds several connections; after a search in vain, the next one waits until it can find one.
        """
        longest, now = self._next_found(), asyncio.get_running_loop().time()
        if longest is None and now >= self._next_search:
            self._search(now)
            longest = self._next_found()
        return longest

    def _search(self, now: float) -> None:
        idle = [(since, connection) for connection in self.members if (since := connection.idle_since) is not None]
        oldest = nsmallest(_FOUND_AT_ONCE, idle, key=itemgetter(0))
        self._found = deque(found for found in oldest if found[0] + MIN_IDLE_SECONDS <= now)
        self._next_search = min(now, oldest[0][0] if oldest else now) + MIN_IDLE_SECONDS

    def _next_found(self) -> Connection | None:
        """Return the next connection of the last search that has been idle ever since."""
        while self._found:
            since, connection = self._found.popleft()
            if connection in self.members and connection.idle_since == since:
                return connection
        return None


def client_address(client: tuple[str, int] | None, proxies: str) -> str:
    """Return the address under which a connection is counted, for IPv6 its /64 network.

    Many clients may share loopback, a socket file, or one of the trusted `proxies`: for these it is the empty string.
    """
    return _SHARED if client is None else _counted(client[0], proxies)


@lru_cache(4096)
def _counted(host: str, proxies: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return _SHARED
    address = getattr(address, "ipv4_mapped", None) or address
    is_shared = address.is_loopback or any(address in proxy for proxy in _networks(proxies))
    return _SHARED if is_shared else network(host)


@lru_cache(1)
def _networks(proxies: str) -> list[IPv4Network | IPv6Network]:
    """Parse addresses and networks that are separated by commas; `*` is every address."""
    found = []
    for part in proxies.replace("*", "0.0.0.0/0,::/0").split(","):
        try:
            found.append(ip_network(part.strip(), strict=False))
        except ValueError:  # the name of a host, or nothing
            continue
    return found
