"""The end of a server: nobody who has connected is turned away, however late the server hears of it."""

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

COUNT = 20


def server(**options: object) -> DrainingServer:
    """A server of an application that answers what it is sent, ready to start."""
    app = application(Gate(Settings()))
    config = uvicorn.Config(app, http=Protocol, ws="none", log_config=None, timeout_graceful_shutdown=20, **options)  # type: ignore[arg-type]
    config.load()
    made = DrainingServer(config)
    made.lifespan = config.lifespan_class(config)
    return made


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=COUNT) as door:
        yield door


def connected(door: socket.socket) -> socket.socket:
    return socket.create_connection(door.getsockname(), timeout=20)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_whoever_has_connected_when_the_server_stops_is_answered(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def stop_with_clients_at_the_door() -> list[socket.socket]:
        stopping = server()
        await stopping.startup([door])
        clients = [connected(door) for _ in range(COUNT)]  # the event loop has no time to accept them
        for client in clients:
            client.sendall(get("/bytes/5"))
        clients.pop().close()
        await stopping.shutdown([door])
        return clients

    with listening() as door:
        address = door.getsockname()
        with asyncio.Runner(loop_factory=loop) as runner:
            clients = runner.run(stop_with_clients_at_the_door())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=20)
    for client in clients:
        with client:
            assert [(answer.status, answer.body) for answer in answers(client)] == [(200, b"xxxxx")]


def test_who_speaks_tls_is_answered_and_who_says_nothing_is_not_waited_for(tmp_path: Path) -> None:
    chain, key = issue(tmp_path)

    def ask(client: socket.socket) -> list[Answer]:
        with trusting().wrap_socket(client, server_hostname="127.0.0.1") as secure:
            secure.sendall(get("/bytes/5"))
            return answers(secure)

    async def stop(client: Callable[[socket.socket], list[Answer]], seconds: float) -> list[Answer]:
        stopping = server(ssl_context_factory=lambda *_: server_context(chain, key))
        stopping.handshake_seconds = seconds
        with listening() as door:
            await stopping.startup([door])
            asking = asyncio.create_task(asyncio.to_thread(client, connected(door)))
            await stopping.shutdown([door])
            return await asking

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert [answer.body for answer in runner.run(stop(ask, 60))] == [b"xxxxx"]
        assert runner.run(stop(silent, 0.1)) == []


def silent(client: socket.socket) -> list[Answer]:
    with client:
        return answers(client)
