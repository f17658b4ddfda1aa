"""Whose connections are counted together, and which one makes room; tests/live/test_crowds.py does it with sockets."""

import asyncio
from dataclasses import dataclass, field

import pytest

from app.server.connections import MAX_PLACELESS, MIN_IDLE_SECONDS, Connections, client_address
from app.settings import Settings


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("127.0.0.1", ""),
        ("127.0.0.9", ""),
        ("::1", ""),
        ("::ffff:127.0.0.1", ""),
        ("10.1.2.3", ""),
        ("::ffff:10.1.2.3", ""),
        ("198.51.100.1", ""),
        ("/run/a.sock", ""),
    ],
)
def test_whose_a_connection_is(host: str, counted: str) -> None:
    assert client_address((host, 1), "198.51.100.1, 10.0.0.0/8,proxy.example.org") == counted


def test_a_socket_file_and_any_trusted_proxy_stand_for_many_clients() -> None:
    assert client_address(None, "") == ""
    assert client_address(("192.0.2.7", 1), "") == "192.0.2.7"
    assert client_address(("192.0.2.7", 1), "*") == ""


@dataclass(eq=False)
class Client:
    """A connection that is idle since a given time, and counts how often it is asked."""

    host: str = "192.0.2.1"
    since: float | None = None
    asked: int = 0
    ended: list[str] = field(default_factory=list)

    @property
    def client(self) -> tuple[str, int]:
        return self.host, 1

    @property
    def idle_since(self) -> float | None:
        self.asked += 1
        return self.since

    def make_room(self) -> None:
        self.ended.append("made room")

    def turn_away(self) -> None:
        self.ended.append("turned away")


def test_of_several_idle_connections_the_oldest_makes_room() -> None:
    async def crowd() -> None:
        connections, limits = Connections(), Settings(max_connections=3)
        now = asyncio.get_running_loop().time()
        busy, older, younger = Client(), Client(since=now - 3), Client(since=now - 2)
        for client in (younger, busy, older):
            assert connections.admit(client, limits) is None
        assert connections.admit(Client(), limits) is None
        assert (busy.ended, older.ended, younger.ended) == ([], ["made room"], [])
        assert connections.admit(Client(), limits) is None
        assert younger.ended == ["made room"]
        assert connections.admit(Client(), limits) is not None

    asyncio.run(crowd())


def test_one_that_is_no_longer_idle_or_gone_keeps_its_place() -> None:
    async def crowd() -> None:
        connections, limits = Connections(), Settings(max_connections=4)
        now = asyncio.get_running_loop().time()
        first, woken, gone, last = clients = [Client(since=now - 9 + number) for number in range(4)]
        for client in (*clients, Client()):
            assert connections.admit(client, limits) is None
        assert first.ended == ["made room"]  # and the others are known to be idle
        woken.since = None
        connections.release(gone)
        assert connections.admit(Client(), limits) is None
        assert connections.admit(Client(), limits) is None
        assert (woken.ended, gone.ended, last.ended) == ([], [], ["made room"])

    asyncio.run(crowd())


def test_an_address_makes_room_among_its_own() -> None:
    async def crowd() -> None:
        connections, limits = Connections(), Settings(max_connections=9, max_connections_per_address=1)
        now = asyncio.get_running_loop().time()
        other, own = Client("192.0.2.2", since=now - 9), Client(since=now - 2)
        assert [connections.admit(client, limits) for client in (other, own, Client())] == [None] * 3
        assert (other.ended, own.ended) == ([], ["made room"])
        refusal = connections.admit(Client(), limits)
        assert refusal is not None
        assert refusal[1] == "too many connections from this address"

    asyncio.run(crowd())


def test_a_flood_costs_no_search_each() -> None:
    async def flood() -> None:
        connections, limits = Connections(), Settings(max_connections=1)
        only = Client(since=asyncio.get_running_loop().time())
        connections.admit(only, limits)
        refused = [Client() for _ in range(MAX_PLACELESS + 5)]
        for client in refused:
            assert connections.admit(client, limits) is not None
        assert only.asked == 1
        assert [client.ended for client in refused[:6]] == [["turned away"]] * 5 + [[]]
        only.since = asyncio.get_running_loop().time() - MIN_IDLE_SECONDS
        await asyncio.sleep(MIN_IDLE_SECONDS)
        assert connections.admit(Client(), limits) is None
        assert only.ended == ["made room"]

    asyncio.run(flood())
