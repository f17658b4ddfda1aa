"""The end of a TLS connection: who reads slowly is waited for, who never closes is not."""

import socket
import ssl
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.server import transport
from app.settings import Settings
from tests.app.server.test_draining import connected
from tests.app.server.test_handshakes import LOOPS, NewLoop, ask, serve, tls_server
from tests.connections import answers, get
from tests.live.test_tls import trusting
from tests.processes import PATIENCE, until


def asking(listener: socket.socket, path: str) -> ssl.SSLSocket:
    """A client whose answer is the last one of its connection."""
    secure = trusting().wrap_socket(connected(listener), server_hostname="127.0.0.1")
    secure.sendall(get(path, "Connection: close"))
    return secure


@LOOPS
def test_who_reads_slowly_gets_all_and_who_never_closes_is_closed(
    loop: NewLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_CLOSE_SECONDS", 0.2)
    made, size = tls_server(tmp_path), 2**24

    def clients(listener: socket.socket) -> None:
        with asking(listener, f"/bytes/{size}") as slow:
            time.sleep(1)
            (answer,) = answers(slow)
            assert len(answer.body) == size
        with asking(listener, "/") as silent:
            assert [answer.status for answer in answers(silent)] == [200]
            assert until(lambda: not made.server_state.connections)

    serve(loop, made, clients)


@LOOPS
def test_who_never_closes_makes_room(loop: NewLoop, tmp_path: Path) -> None:
    made = tls_server(tmp_path, Settings(max_connections=2))

    def clients(listener: socket.socket) -> None:
        with ExitStack() as stack:
            for _ in range(2):
                held = stack.enter_context(asking(listener, "/"))
                assert [answer.status for answer in answers(held)] == [200]
            assert len(made.server_state.connections) == 2
            began = time.monotonic()
            assert until(lambda: ask(connected(listener)) == [200])
            assert time.monotonic() - began < min(PATIENCE, transport._CLOSE_SECONDS)

    serve(loop, made, clients)
