"""Connections are held to limits of number, size and time, whatever the client does; nothing of it is left behind."""

import json
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.settings import Settings
from tests.conftest import MODELS, ROOT, Start
from tests.connections import Answer, Gate, Served, answers, application, get, served
from tests.processes import PATIENCE, until


@contextmanager
def serving(*, send_buffer: int | None = None, **limits: Any) -> Iterator[tuple[Served, Gate]]:
    gate = Gate(Settings(**limits))
    host, keep_alive_seconds = gate.limits.host, gate.limits.keep_alive_seconds
    with served(application(gate), host=host, send_buffer=send_buffer, keep_alive_seconds=keep_alive_seconds) as server:
        yield server, gate
        assert until(lambda: server.tasks == 0)


def send(connection: socket.socket, content: bytes) -> None:
    """All of it, or as much as the server listens to."""
    with suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(content)


def refused(connection: socket.socket, status: int, slug: str) -> Answer:
    """The one answer, after which the server closes."""
    (answer,) = answers(connection)
    assert (answer.status, answer.problem["type"]) == (status, f"urn:vaeserve:problem:{slug}")
    assert answer.headers["connection"] == "close"
    return answer


LARGE = b"x" * 5000


CHUNKED = get("/", "Transfer-Encoding: chunked", method="POST")
HEADS = {
    "line": b"GET /" + LARGE + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "header": get("/", "X: " + LARGE.decode()),
    "headers": get("/", *["X: 1"] * 1000),
    "name": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + LARGE,
    "endless": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + LARGE,
    "nothing": b"\r\n" * 5000,
    "body": get("/", "Content-Length: 5000", "X: " + LARGE.decode(), method="POST") + LARGE,
}
BEHIND = {
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: 1\r\n" * 1000),
    "extension": (CHUNKED, b"1;x=" + LARGE),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("size", [500, 100_000])
def test_a_head_over_the_limit_is_refused(head: bytes, size: int) -> None:
    with serving(max_header_bytes=4096) as (server, gate), server.connect() as connection:
        for start in range(0, len(head), size):
            send(connection, head[start : start + size])
            time.sleep(0.002)
        assert refused(connection, 431, "headers-too-large").problem["detail"] == "at most 4096 bytes"
        assert gate.refused == {"headers-too-large": 1}
        assert gate.bodies == []


@pytest.mark.parametrize(("begin", "end"), BEHIND.values(), ids=BEHIND)
def test_so_is_what_stands_around_a_chunk(begin: bytes, end: bytes) -> None:
    with serving(max_header_bytes=4096) as (server, gate), server.connect() as connection:
        connection.sendall(begin)
        assert until(lambda: server.tasks == 1)  # what one read brings is not told apart
        send(connection, end)
        refused(connection, 431, "headers-too-large")
        assert gate.refused == {"headers-too-large": 1}
        assert until(lambda: gate.disconnects == 1)


def test_heads_up_to_the_limit_pass_with_whatever_follows_them() -> None:
    request = get("/", "X: " + "x" * 3900, "Content-Length: 50000", method="POST") + b"y" * 50_000
    chunked = get("/", "Transfer-Encoding: chunked", method="POST") + b"C350\r\n" + b"y" * 50_000 + b"\r\n0\r\n\r\n"
    last = get("/", "Connection: close")
    with serving(max_header_bytes=4096) as (server, gate), server.connect() as connection:
        connection.sendall(request + chunked + request + last)
        assert [answer.status for answer in answers(connection)] == [200] * 4
        assert [len(body) for body in gate.bodies] == [50_000, 50_000, 50_000, 0]
        assert not gate.refused


def test_an_endless_header_does_not_grow_memory(start: Start) -> None:
    process, client = start(models_dir=MODELS, log_level="error")

    def resident() -> int:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0])

    before = resident()
    for start_ in (b"GET / HTTP/1.1\r\nX: ", b"GET /"):
        with socket.create_connection((client.base_url.host, client.base_url.port), timeout=PATIENCE) as connection:
            with suppress(OSError):
                connection.sendall(start_)
                for _ in range(64):
                    connection.sendall(b"x" * 2**20)
            refused(connection, 431, "headers-too-large")
    assert resident() - before < 16 * 1024
    assert client.get("/health/live").status_code == 200


@pytest.mark.parametrize(
    ("hard", "is_tls", "expected"),
    [
        (5000, False, "(1256, 5000)"),
        (5000, True, "(1768, 5000)"),
        (300, False, "VAE_MAX_CONNECTIONS is 1000, but this process may open 300 files: set it to 44"),
        (1000, True, "VAE_MAX_CONNECTIONS is 1000, but this process may open 1000 files: set it to 232"),
    ],
)
def test_file_descriptors_are_made_room_for(hard: int, is_tls: bool, expected: str) -> None:
    if 0 <= resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        pytest.skip("the hard limit is lower")
    program = (
        f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (200, {hard}))\n"
        "import logging; logging.basicConfig()\n"
        f"from app.server.sockets import raise_file_limit; raise_file_limit(1000, is_tls={is_tls})\n"
        "print(r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert expected in done.stdout + done.stderr
    assert bool(done.stderr) == (hard < 1256)


PARTIAL = {
    "silence": b"",
    "line ends": b"\r\n",
    "line": b"GET /",
    "head": b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    "body": get("/", "Content-Length: 10", method="POST") + b"12345",
    "chunks": get("/", "Transfer-Encoding: chunked", method="POST") + b"1\r\nx\r\n",
    "asks": get("/", "Content-Length: 10", "Expect: 100-continue", method="POST"),
}


@pytest.mark.parametrize("sent", PARTIAL.values(), ids=PARTIAL)
def test_a_request_that_does_not_arrive_in_time_is_refused(sent: bytes) -> None:
    with serving(receive_seconds=0.5) as (server, gate), server.connect() as connection:
        began = time.monotonic()
        connection.sendall(sent)
        if b"100-continue" in sent:
            assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        answer = refused(connection, 408, "request-timeout")
        assert answer.problem["detail"] == "a request must arrive within 0.5 seconds"
        assert time.monotonic() - began > 0.4
        assert gate.refused == {"request-timeout": 1}
        in_body = b"POST" in sent
        assert until(lambda: gate.disconnects == in_body)
        connection.close()
        assert until(lambda: server.connections == 0)


@pytest.mark.parametrize("sent", [get("/", "X: " + "x" * 900), PARTIAL["body"]], ids=("head", "body"))
def test_one_byte_at_a_time_wins_no_time(sent: bytes) -> None:
    with serving(receive_seconds=0.5) as (server, gate), server.connect() as connection:
        began, step = time.monotonic(), 0
        while time.monotonic() - began < 20 and not gate.refused:
            send(connection, sent[step : step + 1])
            step += 1
            time.sleep(0.02)
        assert step < len(sent) or b"POST" in sent
        refused(connection, 408, "request-timeout")


def test_an_answer_may_take_longer_than_its_request() -> None:
    with serving(receive_seconds=1) as (server, gate), server.connect() as connection:
        for last in (False, True):
            connection.sendall(get("/sleep/1.5", *["Connection: close"] * last))
        assert [answer.status for answer in answers(connection)] == [200, 200]
        assert not gate.refused


def test_a_body_that_nobody_reads_has_no_more_time_and_no_second_answer() -> None:
    with serving(receive_seconds=1) as (server, gate), server.connect() as connection:
        connection.sendall(get("/ignore", "Content-Length: 1000", method="POST"))
        for _ in range(100):
            send(connection, b"x")
            time.sleep(0.02)
        assert [answer.status for answer in answers(connection)] == [200]
        assert gate.refused == {"request-timeout": 1}


def test_a_body_that_nobody_reads_is_not_listened_to_without_end() -> None:
    with serving() as (server, gate), server.connect() as connection:
        connection.sendall(get("/ignore", f"Content-Length: {2**40}", method="POST"))
        for _ in range(2**10):  # a GiB
            send(connection, bytes(2**20))
        assert until(lambda: server.connections == 0)
        assert gate.refused == {"body-too-large": 1}


@pytest.mark.parametrize(
    ("then", "reason"),
    [
        (b"GET /", "request-timeout"),
        (b"GET / HTTP/1.1\r\nX: " + LARGE, "headers-too-large"),
        (b"nonsense\r\n\r\n", "bad-request"),
    ],
)
def test_what_is_being_answered_is_answered_before_its_connection_ends(then: bytes, reason: str) -> None:
    with serving(receive_seconds=0.7, max_header_bytes=4096) as (server, gate), server.connect() as connection:
        connection.sendall(get("/sleep/1.5"))
        assert until(lambda: server.tasks == 1)
        connection.sendall(then)
        assert [answer.status for answer in answers(connection)] == [200]
        assert gate.refused == {reason: 1}


def test_requests_sent_ahead_are_bounded() -> None:
    with serving() as (server, gate), server.connect() as connection:
        connection.sendall(get("/sleep/0.3") + get("/") * 5000)
        assert [answer.status for answer in answers(connection)] == [200] * 65
        assert gate.refused == {"too-many-pipelined": 1}


def test_a_connection_that_asks_no_more_is_closed() -> None:
    with serving(keep_alive_seconds=0.5) as (server, gate), server.connect() as connection:
        connection.sendall(get("/"))
        began = time.monotonic()
        assert [answer.status for answer in answers(connection)] == [200]
        assert time.monotonic() - began > 0.4
        assert not gate.refused


def test_the_server_keeps_a_connection_as_long_as_the_setting_says(start: Start) -> None:
    """Longer than common proxies by default, and as long as it is told to otherwise."""
    assert Settings().keep_alive_seconds > 60
    _, client = start(models_dir=ROOT / "models/mnist-2d/2", keep_alive_seconds=0.5)
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=PATIENCE) as connection:
        connection.sendall(get("/health/live"))
        began = time.monotonic()
        assert [answer.status for answer in answers(connection)] == [200]
        assert time.monotonic() - began < 60  # seconds; the default is 75


def test_a_client_that_does_not_read_its_answer_is_given_up() -> None:
    with serving(send_seconds=0.5) as (server, gate), server.connect() as connection:
        connection.sendall(get(f"/bytes/{2**26}"))
        assert until(lambda: gate.refused == {"answer-not-read": 1})
        assert until(lambda: server.connections == 0)


@pytest.mark.parametrize("header", [[], ["Connection: close"]])
def test_so_is_one_that_leaves_a_small_rest(header: list[str]) -> None:
    limits = {"send_seconds": 0.5, "keep_alive_seconds": 0.5}
    with serving(**limits, send_buffer=4096) as (server, gate), server.connect(4096) as connection:
        connection.sendall(get("/bytes/50000", *header))
        assert until(lambda: gate.refused == {"answer-not-read": 1})
        assert until(lambda: server.connections == 0)


def test_a_slow_reader_gets_its_answer() -> None:
    with serving(send_seconds=2, send_buffer=65_536) as (server, gate), server.connect(65_536) as connection:
        connection.sendall(get(f"/bytes/{2**21}", "Connection: close"))
        began, received = time.monotonic(), 0
        while more := connection.recv(32_768):
            received += len(more)
            time.sleep(0.07)
        assert received > 2**21
        assert time.monotonic() - began > 4
        assert not gate.refused


def test_a_client_that_still_sends_reads_why_it_is_refused(start: Start) -> None:
    _, client = start(models_dir=MODELS, max_body_bytes=1000)
    body = b" " * 20_000_000
    headers = "Content-Type: application/json", f"Content-Length: {len(body)}"
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=PATIENCE) as connection:
        connection.sendall(get("/encode", *headers, method="POST") + body)  # all of it is taken, and thrown away
        assert refused(connection, 413, "body-too-large").problem["detail"] == "at most 1000 bytes"


def read_all(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(65_536), b""))


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "count"),
    [
        (get("/"), 1),
        (get("/", "Content-Length: 3", method="POST") + b"abc", 1),
        (get("/") * 3, 3),
        (get("/sleep/0.1") * 3 + get("/"), 4),
        (get("/sleep/0.1") + b"GET / HTTP/1.1\r\nHost:", 1),
        (get("/bytes/5000000"), 1),
        (get("/sleep/0.6").replace(b"HTTP/1.1", b"HTTP/1.0"), 1),
        (get("/bytes/5000000").replace(b"HTTP/1.1", b"HTTP/1.0"), 1),
    ],
)
def test_who_closes_its_sending_side_is_answered(sent: bytes, count: int) -> None:
    with serving() as (server, gate), server.connect() as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = read_all(connection)
        assert received.count(b"HTTP/1.1 200 ") == count
        assert INTERIM not in received
        assert until(lambda: server.connections == 0)
        assert (gate.disconnects, not gate.refused) == (0, True)


def test_while_its_answer_takes_long_it_is_probed() -> None:
    with serving() as (server, gate), server.connect() as connection:
        connection.sendall(get("/sleep/1.5"))
        connection.shutdown(socket.SHUT_WR)
        probes, final = read_all(connection).rsplit(INTERIM, 1)
        assert probes in (b"", INTERIM)
        assert final.startswith(b"HTTP/1.1 200 ")
        assert until(lambda: server.connections == 0)
        assert gate.disconnects == 0


@pytest.mark.parametrize("sent", [get("/sleep/5"), get("/") + get("/sleep/5")])
def test_who_closes_both_sides_is_gone(sent: bytes) -> None:
    with serving() as (server, _):
        with server.connect() as connection:
            connection.sendall(sent)
            assert until(lambda: server.tasks == 1)
        assert until(lambda: server.connections == 0)
        assert server.tasks == 1  # it was not the response that ended the connection


def test_who_knows_no_probe_and_is_gone_holds_no_place_after_its_answer() -> None:
    with serving() as (server, gate):
        with server.connect() as connection:
            connection.sendall(get("/sleep/0.5").replace(b"HTTP/1.1", b"HTTP/1.0"))
            assert until(lambda: server.tasks == 1)
        assert until(lambda: server.connections == server.tasks == 0)
        assert not gate.refused


@pytest.mark.parametrize("sent", [b"", b"GET / HT", get("/", "Content-Length: 3", method="POST") + b"ab"])
def test_who_closes_its_sending_side_within_a_request_gets_nothing(sent: bytes) -> None:
    with serving() as (server, _), server.connect() as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""
        assert until(lambda: server.connections == 0)


def test_a_wish_for_a_websocket_is_answered_as_any_request(live: httpx2.Client) -> None:
    offer = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAA")
    with socket.create_connection((live.base_url.host, live.base_url.port), timeout=PATIENCE) as connection:
        connection.sendall(get("/nope", *offer))
        assert connection.recv(65_536).startswith(b"HTTP/1.1 404 ")


def test_problems_on_the_wire_are_those_of_the_document() -> None:
    document = json.loads((ROOT / "openapi.json").read_text())
    told = document["info"]["description"]
    assert all(f"{status} (" in told for status in (408, 431, 503))
    kinds = document["components"]["schemas"]["Problem"]["properties"]["type"]["x-extensible-enum"]
    assert {"urn:vaeserve:problem:request-timeout", "urn:vaeserve:problem:headers-too-large"} <= set(kinds)
