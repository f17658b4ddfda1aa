"""A real uvicorn on a thread, within limits of a test, and clients of it that know nothing but sockets."""

import asyncio
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from app.server.draining import DrainingServer
from app.server.protocol import Protocol
from app.settings import Settings
from tests.processes import PATIENCE, until


@dataclass
class Gate:
    """What an application of the tests has seen."""

    limits: Settings
    refused: Counter[str] = field(default_factory=Counter)
    connections: set[object] = field(default_factory=set)
    disconnects: int = 0
    bodies: list[bytes] = field(default_factory=list)


@dataclass
class Served:
    """A server, and its port."""

    server: uvicorn.Server
    host: str
    port: int

    @property
    def connections(self) -> int:
        return len(self.server.server_state.connections)

    @property
    def busy(self) -> int:
        """Connections on which a request arrives or is answered."""
        return sum(it.idle_since is None for it in self.server.server_state.connections.copy())

    @property
    def tasks(self) -> int:
        return len(self.server.server_state.tasks)

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        connection = socket.socket()
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(PATIENCE)
        connection.connect((self.host, self.port))
        return connection


@contextmanager
def served(
    app: ASGIApp, *, host: str = "127.0.0.1", send_buffer: int | None = None, keep_alive_seconds: float = PATIENCE
) -> Iterator[Served]:
    """`app` behind the protocol, on a free port."""
    with socket.socket() as listening:
        if send_buffer is not None:  # inherited by what is accepted
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        listening.bind((host, 0))
        port = listening.getsockname()[1]
        options: dict[str, Any] = {"http": Protocol, "ws": "none", "log_config": None}
        options |= {"access_log": False, "timeout_graceful_shutdown": 5, "timeout_keep_alive": keep_alive_seconds}
        server = DrainingServer(uvicorn.Config(app, **options))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            assert until(lambda: server.started)
            yield Served(server, host, port)
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()


def application(gate: Gate) -> ASGIApp:
    """Answers `/bytes/N` with so many bytes, `/sleep/S` after so many seconds, `/ignore` without reading the body, and
    everything else with the body that it read."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["server"] = gate
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        _, what, *argument = scope["path"].split("/")
        body = b""
        if what == "bytes":
            body = b"x" * int(argument[0])
        elif what == "sleep":
            await asyncio.sleep(float(argument[0]))
        elif what != "ignore":
            message = {"more_body": True}
            while message.get("more_body"):
                message = dict(await receive())
                if message["type"] == "http.disconnect":
                    gate.disconnects += 1
                    return
                body += message.get("body", b"")
            gate.bodies.append(body)
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


@dataclass
class Answer:
    """One answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return document


def answers(connection: socket.socket) -> list[Answer]:
    """All answers until the server closes."""
    received = b""
    try:
        while more := connection.recv(2**20):
            received += more
    except ConnectionResetError:
        pass
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers["content-length"])
        found.append(Answer(int(first.split(" ")[1]), headers, received[:length]))
        received = received[length:]
    return found


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    """The head of a request."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode()
