"""Clients that go away or dawdle: nothing is left of the former, and nobody waits for the latter."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from tests.conftest import MODELS, Pixels, Start, base64_png
from tests.live.test_protocol import connect, get
from tests.processes import PATIENCE, resident, until

ROUNDS = 120
HEAVY = "/sample/npy?model=mnist-2d&n=8192"
"""6 MB, more than a socket's buffers hold."""


def reset(connection: socket.socket) -> None:
    """Close so that the server's next packet is answered by a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def post(length: int) -> bytes:
    """The head of a request whose body has so many bytes."""
    return get("/encode", "Content-Type: application/json", f"Content-Length: {length}", method="POST")


def leave_in_the_head(connection: socket.socket) -> None:
    connection.sendall(b"POST /encode HTTP/1.1\r\nHost: localhost\r\nContent-")


def leave_in_the_body(connection: socket.socket) -> None:
    connection.sendall(post(1_000_000) + b'{"images": ["' + b"A" * 200_000)


def leave_while_it_is_computed(connection: socket.socket) -> None:
    connection.sendall(get("/sample/npy?model=mnist&n=256"))
    time.sleep(0.01)


def leave_in_the_answer(connection: socket.socket) -> None:
    connection.sendall(get(HEAVY))
    assert connection.recv(1000)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


@pytest.mark.slow(reason="leaves a thousand times")
@pytest.mark.parametrize("close", [socket.socket.close, reset], ids=["close", "reset"])
@pytest.mark.parametrize(
    "leave", [leave_in_the_head, leave_in_the_body, leave_while_it_is_computed, leave_in_the_answer]
)
def test_nothing_is_left_of_clients_that_go_away(
    start: Start, leave: Callable[[socket.socket], None], close: Callable[[socket.socket], None]
) -> None:
    process, client = start(models_dir=MODELS, log_level="warning", max_rows=8192, queue_rows=100_000, wait_seconds=100)
    memory = []
    assert client.get("/health/live").status_code == 200
    before = descriptors(process.pid)
    for number in range(ROUNDS):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE)
        connection.connect((client.base_url.host, client.base_url.port))
        leave(connection)
        close(connection)
        if number % 40 == 39:
            assert until(lambda: client.get("/models").json()["queued_rows"] == 0)
            memory.append(resident(process.pid))
    assert until(lambda: descriptors(process.pid) <= before)
    assert memory[-1] < memory[0] + 50
    assert client.get("/sample?n=1").status_code == 200
    process.terminate()
    _, log = process.communicate(timeout=PATIENCE)
    assert log == ""  # nothing is worth a warning, and no task was still there to be cancelled


@contextmanager
def slow_senders(client: httpx2.Client, count: int) -> Iterator[None]:
    """While it lasts, so many clients send a byte of a request now and then, half of them of its head."""
    connections, done = [connect(client) for _ in range(count)], threading.Event()
    for number, connection in enumerate(connections):
        connection.sendall(b"POST /encode HTTP/1.1\r\nHost: " if number % 2 else post(1_000_000))

    def send() -> None:
        while not done.is_set():
            for connection in connections:
                with suppress(OSError):  # the server may have had enough of it
                    connection.send(b"a")
            done.wait(0.05)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        yield
    finally:
        done.set()
        sending.join()
        for connection in connections:
            connection.close()


def test_hundreds_of_slow_senders_keep_nobody_waiting(start: Start, digits: Pixels) -> None:
    """They may take longer than the test waits: a request that waited for one of them would fail."""
    process, client = start(models_dir=MODELS, log_level="warning", receive_seconds=10 * PATIENCE)
    before = descriptors(process.pid)
    with slow_senders(client, 300):
        for number in range(200):
            answer = client.post("/encode", json={"images": [base64_png(digits[number])]})
            assert answer.status_code == 200
        assert client.get("/health/live").status_code == 200
    assert until(lambda: descriptors(process.pid) <= before + 1)
    process.terminate()
    assert "Traceback" not in process.communicate(timeout=PATIENCE)[1]


def test_what_is_uploaded_in_part_leaves_no_file(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process, client = start(models_dir=MODELS, log_level="warning")
    head = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
    form = get(
        "/encode/files", "Content-Type: multipart/form-data; boundary=x", "Content-Length: 9000000", method="POST"
    )
    for _ in range(20):
        with connect(client) as connection:
            connection.sendall(form + head + b"x" * 3_000_000)  # beyond what is kept in memory
    assert until(lambda: not any(str(tmp_path) in os.readlink(path) for path in links(process.pid)))
    assert list(tmp_path.iterdir()) == []
    process.terminate()
    assert "Traceback" not in process.communicate(timeout=PATIENCE)[1]


def links(pid: int) -> list[Path]:
    """The open descriptors of a process."""
    return [path for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
