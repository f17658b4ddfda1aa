"""Requests and responses that travel between processes, and calls of an application without a connection."""

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from app.cluster.messages import ReplicaRequest, ReplicaResponse, call_app

SCOPE = {"method": "GET", "path": "/vae/models", "root_path": "/vae", "query_string": b"", "headers": []}


def received(scope: Scope, *messages: Message) -> ReplicaRequest:
    inbox = list(messages)

    async def receive() -> Message:
        return inbox.pop(0)

    return asyncio.run(ReplicaRequest.read({"type": "http", **scope}, receive))


def test_a_request_has_its_whole_body_and_only_the_scope_that_can_be_pickled() -> None:
    pieces = [{"type": "http.request", "body": part, "more_body": part != b"c"} for part in (b"a", b"b", b"c")]
    request = received({**SCOPE, "state": object(), "app": object(), "headers": [[b"a", b"1"]]}, *pieces)
    assert request.body == b"abc"
    assert request.scope == SCOPE | {"headers": [(b"a", b"1")]}
    assert request.path == "/models"


def test_a_client_that_disconnects_sends_no_request() -> None:
    with pytest.raises(ClientDisconnect):
        received(SCOPE, {"type": "http.disconnect"})


def test_head_becomes_get_without_accept_headers() -> None:
    headers = [(b"accept", b"text/html"), (b"accept-encoding", b"gzip"), (b"authorization", b"Bearer key")]
    request = ReplicaRequest(SCOPE | {"method": "HEAD", "headers": headers}, b"body").as_get()
    assert (request.scope["method"], request.body) == ("GET", b"body")
    assert request.scope["headers"] == [(b"authorization", b"Bearer key")]


def test_a_response_with_another_body_has_its_length() -> None:
    answer = ReplicaResponse(200, [(b"content-length", b"1"), (b"a", b"b")], b"x", "me").with_body(b"four")
    assert answer == ReplicaResponse(200, [(b"content-length", b"4"), (b"a", b"b")], b"four", "me")


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = (await receive())["body"] + scope["state"]["more"]
    await send({"type": "http.response.start", "status": 201, "headers": [[b"a", b"b"]]})
    for part in (body[:2], body[2:]):
        await send({"type": "http.response.body", "body": part, "more_body": part == body[:2]})


def test_an_application_is_called() -> None:
    answer = asyncio.run(call_app(echo, ReplicaRequest(SCOPE, b"abc"), {"more": b"d"}))
    assert answer == ReplicaResponse(201, [(b"a", b"b")], b"abcd")


def failing(after: int) -> Any:
    """An application that fails after `after` messages."""

    async def fail(_: Scope, __: Receive, send: Send) -> None:
        messages = [
            {"type": "http.response.start", "status": 200, "headers": []},
            {"type": "http.response.body", "body": b"a", "more_body": True},
            {"type": "http.response.body", "body": b"b"},
        ]
        for message in messages[:after]:
            await send(message)
        raise ValueError("broken")

    return fail


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_exception_before_the_end_of_the_response_is_raised(after: int) -> None:
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(call_app(failing(after), ReplicaRequest(SCOPE), {}))


def test_an_exception_after_the_response_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert asyncio.run(call_app(failing(3), ReplicaRequest(SCOPE), {})).body == b"ab"
    assert "broken" in caplog.text


def test_an_application_that_waits_for_a_disconnect_can_be_cancelled() -> None:
    async def wait(_: Scope, receive: Receive, __: Send) -> None:
        assert (await receive())["more_body"] is False
        await receive()

    async def cancelled() -> None:
        task = asyncio.create_task(call_app(wait, ReplicaRequest(SCOPE), {}))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
