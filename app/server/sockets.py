"""The server's listening sockets, and the limit of open files that bounds its connections."""

import errno
import logging
import socket
from contextlib import ExitStack

from app.errors import StartupError
from app.server.handshakes import MAX_HANDSHAKES, MAX_SILENT

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

BACKLOG = 2048
"""Maximum connections that wait to be accepted, for each socket."""
_UNAVAILABLE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""Errors of an address that this machine does not have: `localhost` may resolve to IPv6 where there is none."""
_OTHER_FILES = 256
"""Files open beside the connections that have a place and TLS handshakes: models, event loop, libraries, and at most
128 connections that have none."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Bind one socket to each address of `host`, without listening yet; port 0 takes a free port, the same for all.

    Call this before the models are loaded, so that a port in use is reported at once.

    Raises:
        StartupError: the port is in use, or this machine has no address of that host.
    """
    sockets: list[socket.socket] = []
    unavailable = OSError(errno.EADDRNOTAVAIL, "no such address")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
        with ExitStack() as on_error:
            for family, (name, _, *scope) in addresses:
                free = sockets[0].getsockname()[1] if sockets else 0
                try:
                    with ExitStack() as attempt:
                        bound = attempt.enter_context(socket.socket(family))
                        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        if family == socket.AF_INET6 and len(addresses) > 1:  # IPv4 has a socket of its own
                            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                        bound.bind((name, port or free, *scope))
                        sockets.append(bound)
                        on_error.push(attempt.pop_all())
                except OSError as error:
                    if error.errno not in _UNAVAILABLE:
                        raise
                    unavailable = error
            if not sockets:
                raise unavailable
            on_error.pop_all()
    except (OSError, UnicodeError) as error:
        raise _listen_error(host, port, error) from error
    return sockets


def listen(sockets: list[socket.socket]) -> None:
    """Start to accept connections.

    Raises:
        StartupError: another server has started to listen on the port since it was bound.
    """
    for bound in sockets:
        try:
            bound.listen(BACKLOG)
        except OSError as error:
            host, port, *_ = bound.getsockname()
            raise _listen_error(host, port, error) from error


def url_of(host: str, sockets: list[socket.socket], *, is_tls: bool) -> str:
    shown = f"[{host}]" if ":" in host else host or "*"
    return f"{'https' if is_tls else 'http'}://{shown}:{sockets[0].getsockname()[1]}"


def raise_file_limit(connections: int, *, is_tls: bool) -> None:
    """Raise the soft limit of open files of this process and its children to what `connections` need.

    Logs a warning if the system does not allow it.
    """
    if resource is None:
        return
    others = _OTHER_FILES + (MAX_SILENT + MAX_HANDSHAKES if is_tls else 0)
    wanted = connections + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (OSError, ValueError):  # macOS refuses more than its own maximum, even below the hard limit
        limit = soft
    if limit < wanted:
        message = "VAE_MAX_CONNECTIONS is %s, but this process may open %s files: set it to %s, or raise `ulimit -n`"
        logger.warning(message, connections, limit, max(1, limit - others))


def _listen_error(host: str, port: int, error: OSError | UnicodeError) -> StartupError:
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return StartupError(f"port {port} is taken; set VAE_PORT or --port")
    reason = (isinstance(error, OSError) and error.strerror) or "no such host"
    return StartupError(f"VAE_HOST {host} and VAE_PORT {port} cannot be listened on: {reason}")
