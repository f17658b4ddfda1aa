"""Text is compressed for clients that accept gzip."""

import gzip
import json

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.api.middleware.compression import Compression
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
    assert binary <= {*Compression(None).exclude_content_types}  # type: ignore[arg-type]


def test_responses_to_bodies(client: TestClient, digits: Pixels) -> None:
    body = {"images": [base64_png(digit) for digit in digits[:200]]}
    answers = [client.post("/encode", json=body, headers=headers) for headers in (GZIP, NONE)]
    assert [answer.headers.get("content-encoding") for answer in answers] == ["gzip", None]
    assert answers[0].json() == answers[1].json()
    query, kind = "/encode/npy?model=mnist-2d", {"Content-Type": "application/x-npy"}
    arrays = client.post(query, content=npy(np.repeat(digits[:1], 200, axis=0)), headers=GZIP | kind)
    assert "content-encoding" not in arrays.headers


def test_a_compressed_response_has_a_weak_etag(client: TestClient) -> None:
    path = "/posteriors?model=mnist-2d&version=2"
    plain, compressed = raw(client, path, **NONE)[0]["etag"], raw(client, path, **GZIP)[0]["etag"]
    assert compressed == f"W/{plain}"
    for etag in (plain, compressed):
        assert client.get(path, headers=GZIP | {"If-None-Match": etag}).status_code == 304


def test_head_has_no_body(client: TestClient) -> None:
    answer = client.head("/models", headers=GZIP)
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == b""
