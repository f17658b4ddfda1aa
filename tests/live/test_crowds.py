"""A server whose connections are all taken: idle ones make room, health is answered, everything else is refused."""

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from app.api.routing.state import HEALTH_PATHS
from tests.conftest import ROOT, Start
from tests.connections import Served, answers, get
from tests.live.test_connections import refused, send, serving
from tests.live.test_protocol import connect
from tests.processes import PATIENCE, until

IN_PART = b"GET / HTTP/1.1\r\nHost: "
LAST = get("/", "Connection: close")


def answered(connection: socket.socket, request: bytes = LAST) -> list[int]:
    """The statuses of all answers, on a connection that is then closed."""
    with connection:
        send(connection, request)
        return [answer.status for answer in answers(connection)]


@contextmanager
def busy(server: Served, count: int) -> Iterator[list[socket.socket]]:
    """While it lasts, so many connections have sent a part of a request, and are not idle."""
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(count)]
        for connection in connections:
            connection.sendall(IN_PART)
        assert until(lambda: server.busy == count)
        yield connections


def test_a_connection_too_many_is_refused_until_another_ends() -> None:
    with serving(max_connections=2) as (server, gate), busy(server, 2) as (first, _):
        with server.connect() as third:
            send(third, get("/"))
            answer = refused(third, 503, "overloaded")
            assert (answer.headers["retry-after"], answer.problem["detail"]) == ("1", "too many connections")
        assert gate.refused == {"too-many-connections": 1}
        first.sendall(b"a\r\nConnection: close\r\n\r\n")
        assert [answer.status for answer in answers(first)] == [200]
        assert until(lambda: server.connections == 1)
        assert answered(server.connect()) == [200]


def test_one_that_asks_nothing_is_refused_as_well() -> None:
    with serving(max_connections=1) as (server, gate), busy(server, 1), server.connect() as silent:
        refused(silent, 503, "overloaded")
        assert gate.refused == {"too-many-connections": 1}


def test_a_flood_of_connections_is_cut_off() -> None:
    with serving(max_connections=4) as (server, gate), busy(server, 4), ExitStack() as stack:
        flood = [stack.enter_context(server.connect()) for _ in range(300)]
        for connection in flood:
            refused(connection, 503, "overloaded")
        assert gate.refused["too-many-connections"] == 300
        assert until(lambda: server.connections == 4)


def test_the_connection_that_is_idle_longest_makes_room() -> None:
    with serving(max_connections=3) as (server, gate), busy(server, 1) as (sending,), ExitStack() as stack:
        silent = stack.enter_context(server.connect())
        assert until(lambda: server.connections == 2)
        time.sleep(0.01)  # the event loop's clock has milliseconds
        kept = stack.enter_context(server.connect())
        kept.sendall(get("/bytes/1"))
        assert kept.recv(2**16).endswith(b"x")
        assert until(lambda: answered(server.connect()) == [200])  # not before it was idle for a second
        assert silent.recv(1) == b""
        kept.sendall(get("/bytes/1"))
        assert kept.recv(2**16).endswith(b"x")
        sending.sendall(b"a\r\nConnection: close\r\n\r\n")
        assert [answer.status for answer in answers(sending)] == [200]
        assert set(gate.refused) <= {"too-many-connections"}


def test_so_does_one_that_is_kept_between_two_requests() -> None:
    with serving(max_connections=1) as (server, _), server.connect() as kept:
        kept.sendall(get("/bytes/1"))
        assert kept.recv(2**16).endswith(b"x")
        assert until(lambda: answered(server.connect()) == [200])
        assert kept.recv(1) == b""


def test_one_that_has_not_read_its_answer_is_not_idle() -> None:
    with serving(max_connections=1, send_buffer=4096) as (server, gate), server.connect(4096) as reading:
        reading.sendall(get("/bytes/50000"))
        assert until(lambda: server.tasks == 0 and server.connections == 1)
        with server.connect() as other:
            refused(other, 503, "overloaded")  # after a second of silence
        received = reading.recv(2**16)
        while len(received) < 50_000:
            received += reading.recv(2**16)
        assert until(lambda: answered(server.connect()) == [200])
        assert gate.refused["answer-not-read"] == 0


def own_address() -> str:
    """An address of this machine that is not loopback: the source of a packet to elsewhere, which is not sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def test_one_address_cannot_take_all_places() -> None:
    limits = {"max_connections": 3, "max_connections_per_address": 1}
    host = own_address()
    with serving(host=host, **limits) as (server, gate), busy(server, 1):
        with server.connect() as second:
            send(second, get("/"))
            assert refused(second, 503, "overloaded").problem["detail"] == "too many connections from this address"
        assert gate.refused == {"too-many-connections-of-address": 1}
    with serving(host=host, **limits) as (server, gate), server.connect() as idle:
        assert until(lambda: server.connections == 1)
        assert until(lambda: answered(server.connect()) == [200])  # the own idle connection makes room
        assert idle.recv(1) == b""
    with serving(host=host, trusted_proxies=host, **limits) as (server, gate), busy(server, 2):
        assert answered(server.connect()) == [200]
        assert not gate.refused


def test_clients_of_loopback_count_as_many() -> None:
    with serving(max_connections_per_address=1) as (server, _), busy(server, 5):
        assert answered(server.connect()) == [200]


@pytest.mark.parametrize("silent", [0, 300])
def test_health_is_answered_while_all_connections_are_taken(start: Start, silent: int) -> None:
    """By clients that send slowly, and behind others that wait, of which each newer one pushes out the oldest."""
    _, client = start(models_dir=ROOT / "models/mnist-2d/2", max_connections=4, receive_seconds=10 * PATIENCE)
    client.close()
    with ExitStack() as stack:

        def connected(content: bytes) -> None:
            stack.enter_context(connect(client)).sendall(content)

        for _ in range(4):
            connected(IN_PART)
        assert until(lambda: answered(connect(client), get("/models")) == [503])
        for path in sorted(HEALTH_PATHS):
            for _ in range(silent):
                connected(b"")
            with connect(client) as probe:
                probe.sendall(get(path))
                (answer,) = answers(probe)
            assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_a_thousand_idle_connections_more_than_allowed_leave_the_server_well(start: Start) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 2500:
        pytest.skip("this process may not open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2500), hard))
    process, client = start(models_dir=ROOT / "models/mnist-2d/2")
    client.close()
    with ExitStack() as stack:
        for _ in range(2000):
            stack.enter_context(connect(client))
        for path in HEALTH_PATHS:
            assert answered(connect(client), get(path, "Connection: close")) == [200]
        assert until(lambda: answered(connect(client), get("/models", "Connection: close")) == [200])
    assert until(lambda: answered(connect(client), get("/models", "Connection: close")) == [200])
    process.terminate()
    assert "Traceback" not in process.communicate(timeout=PATIENCE)[1]
