"""A stopping server answers the connections in its backlog."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
import uvloop

from app.security.tls import server_context
from app.server.draining import DrainingServer
from app.server.protocol import Protocol
from app.settings import Settings
from tests.connections import Answer, Gate, answers, application, get
from tests.live.test_tls import issue, trusting
from tests.processes import PATIENCE

COUNT = 20


def server(limits: Settings | None = None, **options: object) -> DrainingServer:
    """A server that is ready to start, of an application that echoes."""
    app = application(Gate(limits or Settings()))
    config = uvicorn.Config(app, http=Protocol, ws="none", log_config=None, timeout_graceful_shutdown=20, **options)  # type: ignore[arg-type]
    config.load()
    made = DrainingServer(config)
    made.lifespan = config.lifespan_class(config)
    return made


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=COUNT) as listener:
        yield listener


def connected(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname(), timeout=PATIENCE)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_stopping_server_answers_its_backlog(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def stop_with_a_backlog() -> list[socket.socket]:
        stopping = server()
        await stopping.startup([listener])
        clients = [connected(listener) for _ in range(COUNT)]  # the event loop has no time to accept them
        for client in clients:
            client.sendall(get("/bytes/5"))
        clients.pop().close()
        await stopping.shutdown([listener])
        return clients

    with listening() as listener:
        address = listener.getsockname()
        with asyncio.Runner(loop_factory=loop) as runner:
            clients = runner.run(stop_with_a_backlog())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=PATIENCE)
    for client in clients:
        with client:
            assert [(answer.status, answer.body) for answer in answers(client)] == [(200, b"xxxxx")]


def test_tls_clients_in_the_backlog_are_answered_and_silent_ones_are_not_waited_for(tmp_path: Path) -> None:
    chain, key = issue(tmp_path)

    def ask(client: socket.socket) -> list[Answer]:
        with trusting().wrap_socket(client, server_hostname="127.0.0.1") as secure:
            secure.sendall(get("/bytes/5"))
            return answers(secure)

    async def stop(client: Callable[[socket.socket], list[Answer]], seconds: float) -> list[Answer]:
        stopping = server(ssl_context_factory=lambda *_: server_context(chain, key))
        stopping.handshake_seconds = seconds
        with listening() as listener:
            await stopping.startup([listener])
            asking = asyncio.create_task(asyncio.to_thread(client, connected(listener)))
            await stopping.shutdown([listener])
            return await asking

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert [answer.body for answer in runner.run(stop(ask, 60))] == [b"xxxxx"]
        assert runner.run(stop(silent, 0.1)) == []


def silent(client: socket.socket) -> list[Answer]:
    with client:
        return answers(client)
