"""The errors of Ray's own proxy become problem documents; other responses stay as they are."""

import asyncio
import json

import pytest
from starlette.responses import PlainTextResponse, Response

from app.cluster.messages import ReplicaRequest, ReplicaResponse, call_app
from app.cluster.proxy import middlewares


def through(inner: Response | None, path: str = "/sample") -> ReplicaResponse:
    """The response of a proxy that sends `inner`, or nothing."""
    (middleware,) = middlewares()

    async def proxy(*connection: object) -> None:
        if inner is not None:
            await inner(*connection)  # type: ignore[arg-type]

    request = ReplicaRequest({"method": "GET", "path": path, "query_string": b"", "headers": []})
    return asyncio.run(call_app(middleware.cls(proxy, *middleware.args, **middleware.kwargs), request, {}))


@pytest.mark.parametrize(
    ("inner", "status"),
    [
        (None, 503),
        (PlainTextResponse("Internal Server Error", 500), 503),
        (PlainTextResponse("Request dropped due to backpressure", 503), 503),
        (PlainTextResponse("Request timed out", 408), 504),
        (PlainTextResponse("Path not found", 404), 404),
    ],
)
def test_the_proxys_own_errors_are_replaced(inner: Response | None, status: int) -> None:
    answer = through(inner)
    headers = dict(answer.headers)
    assert (answer.status, headers[b"content-type"]) == (status, b"application/problem+json")
    assert (b"retry-after" in headers) == (status == 503)
    assert json.loads(answer.body)["status"] == status
    assert "error" in json.loads(through(inner, "/v2/health/ready").body)


@pytest.mark.parametrize(
    "inner",
    [
        PlainTextResponse("# HELP", 200),
        Response(b"{}", 500, media_type="application/problem+json"),
        Response(b"", 304),
        Response(b"gone", 404),
    ],
)
def test_everything_else_passes(inner: Response) -> None:
    answer = through(inner)
    assert (answer.status, answer.body) == (inner.status_code, inner.body)


def test_the_proxys_health_is_its_own() -> None:
    assert through(PlainTextResponse("unhealthy", 503), "/-/healthz").body == b"unhealthy"
