"""TLS connections that never speak are bounded in number and time, keep nobody out, and are logged."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop

from app.security.tls import server_context
from app.server import handshakes
from app.server.draining import DrainingServer
from app.server.handshakes import MAX_HANDSHAKES
from tests.app.server.test_draining import connected, listening, server
from tests.connections import answers, get
from tests.live.test_tls import issue, trusting
from tests.processes import PATIENCE, until

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
NewLoop = Callable[[], asyncio.AbstractEventLoop]
WARNING = f"{MAX_HANDSHAKES} TLS handshakes at once: other clients wait, and the slowest are closed"


def tls_server(folder: Path) -> DrainingServer:
    chain, key = issue(folder)
    return server(ssl_context_factory=lambda *_: server_context(chain, key))


def serve(loop: NewLoop, made: DrainingServer, clients: Callable[[socket.socket], None]) -> None:
    """Run a server, and in a thread its clients, which get the listening socket."""

    async def run() -> None:
        with listening() as listener:
            await made.startup([listener])
            try:
                await asyncio.to_thread(clients, listener)
            finally:
                await made.shutdown([listener])

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


def ask(client: socket.socket) -> list[int]:
    """The statuses of the answers to a client that speaks TLS."""
    with trusting().wrap_socket(client, server_hostname="127.0.0.1") as secure:
        secure.sendall(get("/", "Connection: close"))
        return [answer.status for answer in answers(secure)]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@LOOPS
def test_silent_clients_are_bounded_and_keep_nobody_out(
    loop: NewLoop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def clients(listener: socket.socket) -> None:
        before, count = descriptors(), 3 * MAX_HANDSHAKES
        with ExitStack() as stack:
            oldest, *_ = [stack.enter_context(connected(listener)) for _ in range(count)]
            assert ask(connected(listener)) == [200]
            assert oldest.recv(1) == b""
            assert descriptors() <= before + count + MAX_HANDSHAKES + 1  # the last is that of the answered client
        assert ask(connected(listener)) == [200]

    with caplog.at_level(logging.WARNING, handshakes.__name__):
        serve(loop, tls_server(tmp_path), clients)
    assert caplog.messages.count(WARNING) == 1


@LOOPS
def test_a_silent_client_is_given_up_in_time(loop: NewLoop, tmp_path: Path) -> None:
    def clients(listener: socket.socket) -> None:
        with connected(listener) as silent, connected(listener) as halting:
            halting.sendall(b"\x16\x03\x01")
            assert silent.recv(1) == b""
            assert halting.recv(1) == b""

    made = tls_server(tmp_path)
    made.tls_seconds = 0.2
    serve(loop, made, clients)


@LOOPS
def test_a_stopping_server_finishes_the_handshakes_in_progress(loop: NewLoop, tmp_path: Path) -> None:
    async def run() -> list[int]:
        made = tls_server(tmp_path)
        made.handshake_seconds = PATIENCE
        with listening() as listener:
            await made.startup([listener])
            client = connected(listener)
            assert await asyncio.to_thread(until, lambda: made._handshakes is not None and made._handshakes.running)
            asking = asyncio.create_task(asyncio.to_thread(ask, client))
            await made.shutdown([listener])
            return await asking

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(run()) == [200]
