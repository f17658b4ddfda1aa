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
from app.server.handshakes import MAX_HANDSHAKES, MAX_SILENT, Handshakes
from app.server.sockets import listen
from app.settings import Settings
from tests.app.server.test_draining import connected, listening, server
from tests.connections import answers, get
from tests.live.test_tls import issue, trusting
from tests.processes import PATIENCE, until

LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
NewLoop = Callable[[], asyncio.AbstractEventLoop]
HALF = b"\x16\x03\x01"
"""Start of a handshake."""


def tls_server(folder: Path, limits: Settings | None = None) -> DrainingServer:
    chain, key = issue(folder)
    return server(limits, ssl_context_factory=lambda *_: server_context(chain, key))


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
@pytest.mark.parametrize(("sent", "limit"), [(b"", MAX_SILENT), (HALF, MAX_HANDSHAKES)], ids=("silent", "half"))
def test_unfinished_handshakes_are_bounded_and_keep_nobody_out(
    loop: NewLoop, sent: bytes, limit: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each new one closes the oldest, and none of them is given up in time."""

    def clients(listener: socket.socket) -> None:
        before, count = descriptors(), limit + limit // 2
        with ExitStack() as stack:
            held = [stack.enter_context(connected(listener)) for _ in range(count)]
            for client in held:
                client.sendall(sent)
            assert ask(connected(listener)) == [200]
            assert all(is_closed(client) for client in held[: limit // 4])
            assert descriptors() <= before + count + limit + 1  # the last is that of the answered client
            assert until(lambda: not any(map(is_closed_now, held[-limit // 4 :])))
        assert ask(connected(listener)) == [200]

    made = tls_server(tmp_path)
    made.tls_seconds = PATIENCE
    with caplog.at_level(logging.WARNING, handshakes.__name__):
        serve(loop, made, clients)
    (warning,) = caplog.messages
    assert warning == f"{limit} silent or unfinished TLS handshakes at once: the oldest are closed"


def is_closed(client: socket.socket) -> bool:
    """Whether the server closes the connection before a time is over."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def is_closed_now(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return is_closed(client)
    except BlockingIOError:
        return False


@LOOPS
@pytest.mark.parametrize("is_shared", [False, True])
def test_a_crowd_of_one_address_makes_room_for_itself(loop: NewLoop, is_shared: bool) -> None:
    """Unless the address is one that many clients share."""
    started = 0

    async def start(connection: socket.socket) -> None:
        nonlocal started
        started += 1
        connection.close()

    def clients(listener: socket.socket) -> None:
        with ExitStack() as stack:
            first = stack.enter_context(connected(listener))
            address = listener.getsockname()
            for _ in range(2 * MAX_SILENT):
                stack.enter_context(socket.create_connection(address, PATIENCE, source_address=("127.0.0.2", 0)))
            if is_shared:
                assert is_closed(first)
            else:
                assert not is_closed_now(first)
                first.sendall(HALF)
                assert until(lambda: started == 1)

    async def run() -> None:
        with listening() as listener:
            address = (lambda _: "") if is_shared else (lambda client: client[0])
            listen([listener])
            accepting = Handshakes([listener], start, seconds=PATIENCE, address=address)
            await asyncio.to_thread(clients, listener)
            accepting.close()
            await asyncio.gather(*accepting.running)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


@LOOPS
def test_a_silent_client_is_given_up_in_time(loop: NewLoop, tmp_path: Path) -> None:
    def clients(listener: socket.socket) -> None:
        with connected(listener) as silent, connected(listener) as halting:
            halting.sendall(HALF)
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
