"""Addresses of callers."""

import pytest

from app.security.addresses import is_loopback, network


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_an_ipv6_network_counts_as_one_caller(host: str, counted: str) -> None:
    assert network(host) == counted


@pytest.mark.parametrize("text", ["", "a name", "192.0.2.7:80", "x" * 30_000, "fe80::1%" + "x" * 30_000, "192.0.2.007"])
def test_all_that_have_no_address_count_as_one(text: str) -> None:
    assert network(text) == "none"


@pytest.mark.parametrize(
    ("host", "is_local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("LocalHost", True), ("0.0.0.0", False), ("", False)],
)
def test_what_only_this_machine_can_reach(host: str, is_local: bool) -> None:
    assert is_loopback(host) is is_local
