"""The file descriptors that a process may have open: each connection takes one."""

import logging

try:
    import resource
except ImportError:  # a system that has no such limit
    resource = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_BESIDE_CONNECTIONS = 256
"""For models, the event loop, libraries, and connections that are being refused."""


def make_room(connections: int) -> None:
    """Raise the process's limit, and so that of processes that it starts, to so many connections, as far as the system
    lets it; warn where it does not."""
    if resource is None:
        return
    wanted = connections + _BESIDE_CONNECTIONS
    soft, hard = (_finite(limit, wanted) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    if soft < wanted and not _raise(min(wanted, hard)):
        hard = soft
    if max(soft, hard) < wanted:
        _warn(connections, max(soft, hard))


def _finite(limit: int, wanted: int) -> int:
    return wanted if limit == resource.RLIM_INFINITY else limit


def _raise(soft: int) -> bool:
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    except (OSError, ValueError):  # macOS refuses more than it can, whatever the hard limit says
        return False
    return True


def _warn(connections: int, descriptors: int) -> None:
    logger.warning(
        "VAE_MAX_CONNECTIONS is %s, but this process may open %s files: set it to %s, or raise `ulimit -n`",
        connections,
        descriptors,
        max(1, descriptors - _BESIDE_CONNECTIONS),
    )
