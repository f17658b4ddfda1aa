"""Exceptions become problem documents, once and only before the response begins."""

import asyncio
import gc
import json
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from app.api.middleware.errors import ErrorResponses
from app.api.middleware.exchange import Exchange, Exchanges
from app.errors import InferenceFailed, InvalidInput, NotFinite, RateExceeded, VaeError
from tests import hostile
from tests.conftest import ROOT

START: Message = {"type": "http.response.start", "status": 200, "headers": []}


def sent(error: BaseException, *before: Message, method: str = "GET") -> list[Message]:
    """What is sent to the client by an application that sends these messages, and then raises."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for name in (b"outer", b"inner"):
            Exchange.of(scope).hooks.append(lambda start, name=name: mark(start, name))
        for message in before:
            await send(message)
        raise error

    def mark(start: Message, name: bytes) -> None:
        start["headers"].append((b"x-by", name))

    messages: list[Message] = []

    async def send(message: Message) -> None:
        messages.append(message)

    async def receive() -> Message:
        raise AssertionError

    scope = {"type": "http", "method": method, "path": "/nope", "headers": []}
    asyncio.run(Exchanges(ErrorResponses(app), max_body_bytes=8, max_held_bytes=8)(scope, receive, send))
    return messages


def problem(messages: list[Message]) -> dict[str, Any]:
    start, body = messages
    document: dict[str, Any] = json.loads(body["body"])
    assert document["status"] == start["status"]
    return document


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (RateExceeded("slowly", 7), 429, "slowly"),
        (HTTPException(404), 404, "openapi.json lists every path"),
        (HTTPException(413, "at most 8 bytes"), 413, "at most 8 bytes"),
        (InferenceFailed("of the server's own affairs"), 500, None),
        (NotFinite("of the server's own affairs"), 500, NotFinite.failure),
    ],
)
def test_an_expected_exception_is_answered(error: Exception, status: int, detail: str | None) -> None:
    document = problem(sent(error))
    assert (document["status"], document.get("detail")) == (status, detail)


def test_headers_are_added_by_the_innermost_middleware_first() -> None:
    start, _ = sent(VaeError())
    assert [value for name, value in start["headers"] if name == b"x-by"] == [b"inner", b"outer"]


def test_the_response_to_head_has_no_body() -> None:
    start, body = sent(VaeError(), method="HEAD")
    assert (start["status"], body["body"]) == (500, b"")


def test_nobody_is_answered_after_a_disconnect() -> None:
    assert sent(ClientDisconnect()) == []


@pytest.mark.parametrize("error", [VaeError(), HTTPException(404), RuntimeError()])
def test_a_response_that_has_begun_is_followed_by_no_other(error: Exception) -> None:
    with pytest.raises(type(error)):
        sent(error, START)


def test_a_request_that_is_cancelled_is_told_that_the_server_stops() -> None:
    async def run() -> list[Message]:
        messages: list[Message] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.Event().wait()

        async def send(message: Message) -> None:
            messages.append(message)

        async def receive() -> Message:
            raise AssertionError

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        task = asyncio.create_task(
            Exchanges(ErrorResponses(app), max_body_bytes=8, max_held_bytes=8)(scope, receive, send)
        )  # type: ignore[arg-type]
        await asyncio.sleep(0)
        task.cancel()
        await task
        return messages

    assert problem(asyncio.run(run()))["detail"] == "the server is stopping"


def left_to_the_collector(send: Callable[[], Any]) -> list[str]:
    """The functions of the project whose frames only the garbage collector frees, after `send`."""
    send()  # what is made once
    gc.collect()
    gc.disable()
    try:
        send()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        frames = [it for it in gc.garbage if isinstance(it, FrameType)]
        return [
            it.f_code.co_qualname
            for it in frames
            if it.f_code.co_filename.startswith((f"{ROOT}/app/", f"{ROOT}/tests/"))
        ]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_a_refused_body_leaves_memory_with_its_response(make_client: Callable[..., TestClient]) -> None:
    client = make_client()
    numbers = b'{"latents":[[' + b"1," * 3_000_000 + b"1]]}"
    [parts] = [content for name, content in hostile.refused() if name == "PNG of a million pieces of data"]

    def send() -> None:
        assert client.post("/encode/files", files={"images": parts}).status_code == 422
        assert client.post("/encode", json={"images": ["!" * 300_000]}).status_code == 422
        headers = {"Content-Type": "application/json"}
        assert client.post("/decode", content=numbers, headers=headers).status_code == 413

    assert left_to_the_collector(send) == []


@pytest.mark.parametrize("error", [ClientDisconnect, InvalidInput])
def test_an_exception_that_its_frame_refers_to_leaves_memory_too(error: type[Exception]) -> None:
    def send() -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                raise ValueError
            except ValueError as cause:
                kept, reason = cause, error("wrong")  # noqa: F841
                raise reason from None

        async def nothing(*_: Any) -> Any: ...

        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        asyncio.run(Exchanges(ErrorResponses(app), max_body_bytes=8, max_held_bytes=8)(scope, nothing, nothing))

    assert left_to_the_collector(send) == []
