"""Text is compressed for clients that accept gzip."""

import asyncio
import gzip
import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from app.api.middleware.compression import Compression
from app.api.middleware.exchange import Exchanges
from app.api.routing.negotiation import BINARY
from tests.conftest import ROOT, Pixels, base64_png, npy
from tests.document import operations

GZIP, NONE = {"Accept-Encoding": "gzip, deflate, br"}, {"Accept-Encoding": "identity"}


def raw(client: TestClient, path: str, **headers: str) -> tuple[dict[str, str], bytes]:
    """Headers of a response, and its body as it was sent."""
    with client.stream("GET", path, headers=headers) as answer:
        return dict(answer.headers), b"".join(answer.iter_raw())


@pytest.mark.parametrize("path", ["/openapi.json", "/models", "/posteriors?model=mnist-2d", "/static/explorer/app.js"])
def test_text_is_compressed(client: TestClient, path: str) -> None:
    plain, content = raw(client, path, **NONE)
    assert "content-encoding" not in plain
    headers, compressed = raw(client, path, **GZIP)
    assert headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in headers["vary"]
    assert headers.get("content-length", str(len(compressed))) == str(len(compressed))
    assert gzip.decompress(compressed) == content
    assert len(compressed) < len(content) / 2
    for name in ("content-type", "x-content-type-options", "content-security-policy"):
        assert headers.get(name) == plain.get(name)


@pytest.mark.parametrize("accepted", ["identity", "", "br", "gzip;q=0", "deflate", "GZIP;q=0.0, br"])
def test_only_for_clients_that_accept_it(client: TestClient, accepted: str) -> None:
    headers, content = raw(client, "/models", **{"Accept-Encoding": accepted})
    assert "content-encoding" not in headers
    assert json.loads(content)


@pytest.mark.parametrize("path", ["/health/live", "/sample/image?n=64", "/sample/npy?n=64", "/sample/safetensors?n=64"])
def test_neither_short_responses_nor_binary_ones(client: TestClient, path: str) -> None:
    assert "content-encoding" not in raw(client, path, **GZIP)[0]


def test_every_binary_media_type_is_known() -> None:
    document = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
    binary = {
        media_type
        for operation in operations(document)
        for answer in operation.answers.values()
        for media_type, described in answer.get("content", {}).items()
        if described["schema"].get("format") == "binary"
    }
    assert binary <= {*BINARY}


def test_responses_to_bodies(client: TestClient, digits: Pixels) -> None:
    body = {"images": [base64_png(digit) for digit in digits[:200]]}
    answers = [client.post("/encode", json=body, headers=headers) for headers in (GZIP, NONE)]
    assert [answer.headers.get("content-encoding") for answer in answers] == ["gzip", None]
    assert answers[0].json() == answers[1].json()
    query, kind = "/encode/npy?model=mnist-2d", {"Content-Type": "application/x-npy"}
    arrays = client.post(query, content=npy(np.repeat(digits[:1], 200, axis=0)), headers=GZIP | kind)
    assert "content-encoding" not in arrays.headers


@pytest.mark.parametrize(
    "path",
    [
        "/posteriors?model=mnist-2d&version=2",
        "/sample?seed=1&model=mnist-2d",
        "/static/explorer/app.js",
        "/static/docs.js",
    ],
)
def test_the_etag_of_text_is_weak_for_clients_that_accept_gzip(client: TestClient, path: str) -> None:
    plain, compressed = raw(client, path, **NONE)[0], raw(client, path, **GZIP)[0]
    assert compressed["etag"] == f"W/{plain['etag']}"
    assert plain["vary"] == compressed["vary"] == "Accept-Encoding"
    for accepts, full in ((NONE, plain), (GZIP, compressed)):
        for etag in (plain["etag"], compressed["etag"], "*"):
            answer = client.get(path, headers=accepts | {"If-None-Match": etag})
            assert (answer.status_code, answer.content) == (304, b"")
            assert (answer.headers["etag"], answer.headers["vary"]) == (full["etag"], "Accept-Encoding")


@pytest.mark.parametrize("path", ["/sample/image?seed=1", "/sample/npy?seed=1", "/static/swagger-ui/favicon-32x32.png"])
def test_the_etag_of_binary_responses_is_strong_for_all(client: TestClient, path: str) -> None:
    etag = raw(client, path, **NONE)[0]["etag"]
    for known in ("", etag, f"W/{etag}"):
        answer = client.get(path, headers=GZIP | {"If-None-Match": known})
        assert answer.status_code == (304 if known else 200)
        assert answer.headers["etag"] == etag
        assert "vary" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/models", "/health/live", "/metrics", "/openapi.json", "/docs", "/nope", "/sample?n=0"]
)
@pytest.mark.parametrize("accepted", ["gzip", "identity"])
def test_caches_are_told_of_the_encodings(client: TestClient, path: str, accepted: str) -> None:
    for method in ("GET", "HEAD"):
        answer = client.request(method, path, headers={"Accept-Encoding": accepted})
        assert answer.headers["vary"].endswith("Accept-Encoding")
        assert answer.headers["vary"].count("Accept-Encoding") == 1


def test_head_has_no_body(client: TestClient) -> None:
    answer = client.head("/models", headers=GZIP)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == b""


BUNDLE = "/static/swagger-ui/swagger-ui-bundle.js"
"""A file that is sent, and compressed, in many chunks."""


def test_a_large_file_is_compressed_as_it_is_read(client: TestClient) -> None:
    content = (ROOT / "app" / BUNDLE.removeprefix("/")).read_bytes()
    headers, compressed = raw(client, BUNDLE, **GZIP)
    assert gzip.decompress(compressed) == content
    assert len(compressed) < len(content) / 2
    assert not {"content-length", "accept-ranges", "last-modified"} & {*headers}
    head = client.head(BUNDLE, headers=GZIP)
    assert head.content == b""
    assert {**head.headers, "x-request-id": ""} == {**headers, "x-request-id": ""}
    plain, whole = raw(client, BUNDLE, **NONE)
    assert whole == content
    assert (plain["content-length"], plain["accept-ranges"]) == (str(len(content)), "bytes")
    assert "last-modified" in plain


def test_a_part_of_a_file_is_not_compressed(client: TestClient) -> None:
    plain, content = raw(client, BUNDLE, **NONE)
    weak = raw(client, BUNDLE, **GZIP)[0]["etag"]
    part = {"Range": "bytes=100-199"}
    for accepts in (GZIP, NONE):
        for condition in ({}, {"If-Range": plain["etag"]}, {"If-Range": plain["last-modified"]}):
            answer = client.get(BUNDLE, headers=accepts | part | condition)
            assert (answer.status_code, answer.content) == (206, content[100:200])
            assert "content-encoding" not in answer.headers
            assert (answer.headers["etag"], answer.headers["vary"]) == (plain["etag"], "Accept-Encoding")
    headers, compressed = raw(client, BUNDLE, **GZIP, **part, **{"If-Range": weak})
    assert headers["content-encoding"] == "gzip"  # a weak ETag names no bytes: the whole file is sent
    assert gzip.decompress(compressed) == content


def workers() -> int:
    """Threads of anyio, in which responses are compressed; idle ones stay for some seconds."""
    return sum("AnyIO worker" in thread.name for thread in threading.enumerate())


def test_few_responses_are_compressed_at_the_same_time() -> None:
    text, sizes = b"[%s]" % b",".join(b"%d" % number for number in range(100_000)), list[int]()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": text})

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            sizes.append(len(gzip.decompress(message["body"])))

    async def all_at_once() -> int:
        app, before = Exchanges(Compression(answer, threads=2), 2**20, 2**20), workers()
        await asyncio.gather(
            *(
                app({"type": "http", "method": "POST", "headers": [(b"accept-encoding", b"gzip")]}, receive, send)
                for _ in range(12)
            )
        )
        return workers() - before

    assert asyncio.run(all_at_once()) <= 2
    assert sizes == [len(text)] * 12


def test_as_many_as_the_server_has_slots(make_client: Callable[..., TestClient]) -> None:
    client = make_client(slots=3)
    (threads,) = (it.kwargs["threads"] for it in client.app.user_middleware if it.cls is Compression)  # type: ignore[attr-defined]
    assert threads == 3
