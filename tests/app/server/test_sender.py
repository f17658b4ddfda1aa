"""Responses are sent byte for byte as uvicorn sends them, in one write where that is possible."""

import asyncio
import logging
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from app.server.sender import ResponseSender

OK = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5"), (b"x-seed", b"7")]}
BODY = {"type": "http.response.body", "body": b"hello"}
LARGE = [(b"content-length", b"70000")]


class Transport:
    """Records what is written."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.writes.append(b"".join(parts))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True


class Request:
    """One request that an application answers with `messages`, through `ResponseSender` or through uvicorn alone."""

    def __init__(
        self, messages: list[Any], *, method: str = "GET", keep_alive: bool = True, scheme: str = "http"
    ) -> None:
        self.transport, self.completed, self.messages = Transport(), 0, messages
        self.cycle = RequestResponseCycle(
            scope={"type": "http", "method": method, "scheme": scheme},  # type: ignore[typeddict-item]
            transport=self.transport,  # type: ignore[arg-type]
            flow=FlowControl(self.transport),  # type: ignore[arg-type]
            logger=logging.getLogger("test"),
            access_logger=logging.getLogger("test"),
            access_log=False,
            default_headers=[(b"date", b"today")],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self._complete,
        )

    def _complete(self) -> None:
        self.completed += 1

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        for message in self.messages:
            await send(dict(message))

    def run(self, *, joined: bool) -> list[bytes]:
        app = ResponseSender(self.answer, self.cycle) if joined else self.answer
        asyncio.run(app(self.cycle.scope, self.cycle.receive, self.cycle.send))
        return self.transport.writes


@pytest.mark.parametrize(
    ("messages", "method", "keep_alive", "writes"),
    [
        ([OK, BODY], "GET", True, 1),
        ([OK | {"status": 422}, BODY], "POST", True, 1),
        ([OK | {"headers": LARGE}, BODY | {"body": bytes(70_000)}], "GET", True, 1),
        ([OK | {"headers": [(b"content-length", b"0")]}, BODY | {"body": b""}], "GET", True, 1),
        ([OK, BODY | {"body": b""}], "HEAD", True, 1),
        ([OK | {"status": 204, "headers": []}, BODY | {"body": b""}], "DELETE", True, 2),
        ([OK, BODY | {"body": b"he", "more_body": True}, BODY | {"body": b"llo"}], "GET", True, 3),
        ([OK | {"headers": []}, BODY], "GET", True, 2),
        ([OK | {"headers": [(b"transfer-encoding", b"chunked")]}, BODY], "GET", True, 2),
        ([OK, BODY], "GET", False, 2),
        ([OK | {"headers": [*OK["headers"], (b"connection", b"close")]}, BODY], "GET", True, 2),
    ],
)
def test_the_bytes_are_those_of_uvicorn(messages: list[Any], method: str, keep_alive: bool, writes: int) -> None:
    ours, plain = (Request(messages, method=method, keep_alive=keep_alive) for _ in range(2))
    joined = ours.run(joined=True)
    assert b"".join(joined) == b"".join(plain.run(joined=False)) != b""
    assert len(joined) == writes
    assert ours.completed == plain.completed == 1
    assert ours.cycle.response_complete
    assert ours.transport.is_closed == plain.transport.is_closed
    assert asyncio.run(ours.cycle.receive()) == {"type": "http.disconnect"}


@pytest.mark.parametrize(
    "messages",
    [
        [OK, BODY | {"body": b"four"}],
        [OK, BODY | {"body": b"sixsix"}],
        [OK | {"headers": [*OK["headers"], (b"x-model", b"a\r\nset-cookie: b")]}, BODY],
        [OK | {"headers": [*OK["headers"], (b"x-model", b"a\nb")]}, BODY],
        [OK | {"headers": [*OK["headers"], (b"x-model", b"a\0b")]}, BODY],
        [OK, BODY, BODY],
        [OK, BODY, OK, BODY],
        [OK, OK],
        [BODY],
    ],
)
def test_what_uvicorn_refuses_is_refused(messages: list[Any]) -> None:
    ours, plain = Request(messages), Request(messages)
    with pytest.raises(RuntimeError) as theirs:
        plain.run(joined=False)
    with pytest.raises(RuntimeError) as raised:
        ours.run(joined=True)
    assert str(raised.value) == str(theirs.value)


def test_nothing_is_written_to_a_client_that_is_gone() -> None:
    request = Request([OK, BODY])
    request.cycle.disconnected = True
    assert request.run(joined=True) == []


def test_a_client_that_waits_for_100_continue_gets_none_after_its_answer() -> None:
    request = Request([OK, BODY])
    request.cycle.waiting_for_100_continue = True
    request.run(joined=True)
    asyncio.run(request.cycle.receive())
    assert len(request.transport.writes) == 1


@pytest.mark.parametrize("messages", [[BODY], [BODY | {"body": bytes(600_000)}], [BODY | {"body": b""}]])
@pytest.mark.parametrize("chunked", [False, True])
def test_large_bodies_are_encrypted_in_parts(messages: list[Any], *, chunked: bool) -> None:
    length = [] if chunked else [(b"content-length", b"%d" % sum(len(message["body"]) for message in messages))]
    whole = [OK | {"headers": length}, *messages]
    ours, plain = (Request(whole, scheme="https") for _ in range(2))
    written = ours.run(joined=True)
    assert max(map(len, written)) <= 2**18 + 100
    assert b"".join(_bodies(written)) == b"".join(_bodies(plain.run(joined=False)))
    assert ours.completed == plain.completed == 1


def _bodies(writes: list[bytes]) -> list[bytes]:
    """What a client reads, without the head and the sizes of chunks."""
    head, _, rest = b"".join(writes).partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return [rest]
    bodies = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        bodies.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return bodies


def test_other_requests_are_answered_between_the_parts() -> None:
    request, turns = Request([OK | {"headers": []}, BODY | {"body": bytes(2**20)}], scheme="https"), list[int]()

    async def others() -> None:
        while not request.cycle.response_complete:
            turns.append(len(request.transport.writes))
            await asyncio.sleep(0)

    async def both() -> None:
        app = ResponseSender(request.answer, request.cycle)
        await asyncio.gather(others(), app(request.cycle.scope, request.cycle.receive, request.cycle.send))

    asyncio.run(both())
    assert len(set(turns)) >= 4
