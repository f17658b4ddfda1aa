"""The sockets that the server listens on, bound before it loads anything: a port that is taken is known at once."""

import errno
import ipaddress
import socket
from collections.abc import Collection
from typing import Any

from app.errors import StartupError

Address = tuple[Any, ...]
"""Host and port, and of IPv6 two numbers more."""
BACKLOG = 2048
"""Connections that wait to be accepted."""
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""How an address is refused that this machine lacks: `localhost` may have one of IPv6, and the machine none."""


def bind(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of `host`, bound to `port` (one that is free if 0), that does not listen yet.

    Raises:
        StartupError: the port is taken, or the host is none of this machine's.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return _bind_all(dict.fromkeys((family, address) for family, _, _, _, address in found))
    except (OSError, UnicodeError) as error:
        raise _refused(host, port, error) from error


def listen(sockets: list[socket.socket]) -> None:
    """Take connections from now on; raises StartupError where another server has come to do so meanwhile."""
    for bound in sockets:
        try:
            bound.listen(BACKLOG)
        except OSError as error:
            host, port, *_ = bound.getsockname()
            raise _refused(host, port, error) from error


def is_loopback(host: str) -> bool:
    """Whether nobody reaches this address but from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def address_of(host: str, sockets: list[socket.socket], *, is_tls: bool = False) -> str:
    """Where the server is to be found, as a URL."""
    shown = f"[{host}]" if ":" in host else host or "*"
    return f"{'https' if is_tls else 'http'}://{shown}:{sockets[0].getsockname()[1]}"


def _bind_all(addresses: Collection[tuple[int, Address]]) -> list[socket.socket]:
    """Raises OSError where one of them is taken, or this machine has none of them."""
    sockets: list[socket.socket] = []
    missing = OSError(errno.EADDRNOTAVAIL, "no such address")
    for family, (host, port, *rest) in addresses:
        port = port or (sockets[0].getsockname()[1] if sockets else 0)  # one for all addresses
        try:
            sockets.append(_bound(family, (host, port, *rest), apart=len(addresses) > 1))
        except OSError as error:
            if error.errno not in _ABSENT:
                for bound in sockets:
                    bound.close()
                raise
            missing = error
    if not sockets:
        raise missing
    return sockets


def _bound(family: int, address: Address, *, apart: bool) -> socket.socket:
    """A bound socket; one of IPv6 takes no IPv4 where that is `apart`, in a socket of its own."""
    bound = socket.socket(family)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if apart and family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    return bound


def _refused(host: str, port: int, error: Exception) -> StartupError:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return StartupError(f"port {port} is taken; set VAE_PORT or --port")
    reason = getattr(error, "strerror", None) or "no such host"
    return StartupError(f"VAE_HOST {host} and VAE_PORT {port} cannot be listened on: {reason}")
