"""Network addresses: which belong to one caller, and which only this machine can reach."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

_MAX_CHARACTERS = 64
"""Maximum characters of an address; the longest IPv6 address with a zone has fewer."""
_NO_ADDRESS = "none"


def network(host: str) -> str:
    """Return the address by which a caller without a key is counted; for IPv6 its /64, which belongs to one caller.

    All callers without a valid address count as one: a proxy may pass on any text as the address of its client.
    """
    return _network(host) if len(host) <= _MAX_CHARACTERS else _NO_ADDRESS


@lru_cache(4096)
def _network(host: str) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        return _NO_ADDRESS
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or f"{IPv6Address(int(address) >> 64 << 64)}/64")
    return str(address)


@lru_cache(64)
def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
