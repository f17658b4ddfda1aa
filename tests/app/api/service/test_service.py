"""Models, health, metrics, the documentation page, and what every operation shares."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app import __version__
from app.bundle.files import read_manifest
from tests.conftest import MODELS, Pixels, base64_png, full

JSON = {"Content-Type": "application/json"}


def problem(answer: Any, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:vaeserve:problem:{slug}"
    assert body["status"] == status
    return body


def test_the_service_names_itself(client: TestClient) -> None:
    body = client.get("/").json()
    assert (body["name"], body["version"]) == ("vaeserve", __version__)
    for link in body["links"].values():
        assert client.get(f"/{link}").status_code == 200


@pytest.mark.parametrize(
    "accept",
    ["text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "*/*;q=0.1, TEXT/HTML; q=0.5"],
)
def test_a_browser_gets_the_page(client: TestClient, accept: str) -> None:
    page = client.get("/", headers={"Accept": accept})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["vary"] == "Accept, Accept-Encoding"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", page.text)
    again = client.get("/", headers={"Accept": accept, "If-None-Match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == policy
    assert (again.headers["etag"], again.headers["vary"]) == (page.headers["etag"], "Accept-Encoding, Accept")


@pytest.mark.parametrize("accept", ["*/*", "application/json", "text/html;q=0, */*", "text/html; q=0.0,*/*", ""])
def test_others_get_the_service_document(client: TestClient, accept: str) -> None:
    answer = client.get("/", headers={"Accept": accept})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    assert answer.json()["name"] == "vaeserve"


@pytest.mark.parametrize(("name", "kind"), [("main.js", "text/javascript"), ("explorer.css", "text/css")])
def test_static_files_are_kept_and_asked_for_again(client: TestClient, name: str, kind: str) -> None:
    path = f"/static/explorer/{name}"
    file = client.get(path)
    assert file.headers["content-type"] == f"{kind}; charset=utf-8"
    assert (file.headers["cache-control"], file.headers["x-content-type-options"]) == ("no-cache", "nosniff")
    again = client.get(path, headers={"If-None-Match": file.headers["etag"]})
    assert (again.status_code, again.content, again.headers["cache-control"]) == (304, b"", "no-cache")
    problem(client.get("/static/explorer/nope.js"), 404, "not-found")


def test_models_are_listed_with_their_manifests(client: TestClient) -> None:
    body = client.get("/models").json()
    assert body["default"] == "mnist"
    assert body["queued_rows"] == 0
    listed = {(model["name"], model["version"]): model for model in body["models"]}
    for (name, version), model in listed.items():
        assert model["manifest"] == read_manifest(MODELS / name / str(version)).model_dump(mode="json")
        assert (model["state"], model["execution_provider"]) == ("ready", "cpu")
    assert [model["default"] for model in listed.values()].count(True) == 1


def test_one_model_in_one_version(client: TestClient) -> None:
    body = client.get("/models/mnist-2d", params={"version": 1}).json()
    assert (body["name"], body["version"], body["default"]) == ("mnist-2d", 1, False)
    assert 1 in body["versions"]
    problem(client.get("/models/nope"), 404, "unknown-model")
    problem(client.get("/models/mnist-2d", params={"version": 99}), 404, "unknown-model")


@pytest.mark.parametrize("path", ["/sample", "/sample/image", "/manifold/image"])
@pytest.mark.parametrize("query", [{"model": "nope"}, {"model": "../mnist"}, {"version": 99}])
def test_unknown_models_and_versions(client: TestClient, path: str, query: dict[str, Any]) -> None:
    problem(client.get(path, params=query), 404, "unknown-model")


def test_health(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}


def test_a_stopping_server_is_not_ready(make_client: Callable[..., TestClient]) -> None:
    client = make_client()
    assert client.portal is not None
    client.portal.call(client.app_state["server"].catalog.batcher.close)
    refused = client.get("/health/ready")
    problem(refused, 503, "overloaded")
    assert refused.headers["retry-after"] == "1"
    problem(client.get("/sample"), 503, "overloaded")
    assert client.get("/health/live").status_code == 200


def test_a_full_queue_refuses(make_client: Callable[..., TestClient]) -> None:
    client = make_client(queue_rows=4)
    assert client.get("/sample", params={"n": 4}).status_code == 200
    with full(client):
        refused = client.get("/sample", params={"n": 4})
    problem(refused, 503, "overloaded")
    assert refused.headers["retry-after"] == "1"


def test_settings_bound_requests(make_client: Callable[..., TestClient]) -> None:
    client = make_client(max_rows=2, max_steps=3, max_manifold=2, max_pixels=2 * 784, max_body_bytes=2000)
    line = {"points": [{"label": 0}, {"label": 1}]}
    assert client.get("/sample", params={"n": 2}).status_code == 200
    assert client.get("/sample", params={"n": 3}).status_code == 422
    assert client.get("/manifold/image", params={"n": 3}).status_code == 422
    assert client.post("/interpolate", json=line | {"steps": 4}).status_code == 422
    large = base64_png(np.zeros((40, 40), np.uint8))
    assert "too many pixels" in client.post("/encode", json={"images": [large]}).text
    assert "more than 1568 pixels" in client.post("/interpolate", json=line | {"steps": 3}).text
    assert problem(client.post("/decode", content=b" " * 2001, headers=JSON), 413, "body-too-large")


def test_a_body_is_stopped_while_it_streams(make_client: Callable[..., TestClient]) -> None:
    client, sent = make_client(max_body_bytes=10_000), []

    def endless() -> Iterator[bytes]:
        while True:
            sent.append(1)
            assert len(sent) < 100
            yield b" " * 1000

    for path, kind in (("/encode", "application/json"), ("/encode/npy", "application/x-npy")):
        sent.clear()
        body = b" " * 10_001
        assert problem(client.post(path, content=body, headers={"Content-Type": kind}), 413, "body-too-large")
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    problem(client.post("/encode/files", content=b" " * 10_001, headers=multipart), 413, "body-too-large")


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/encode", "application/json"),
        ("/encode/files", "multipart/form-data"),
        ("/encode/npy", "application/x-npy"),
        ("/decode", "application/json"),
        ("/decode/npy", "application/x-npy"),
        ("/interpolate", "application/json"),
    ],
)
def test_other_content_types_are_refused(client: TestClient, path: str, wanted: str) -> None:
    for headers in ({}, {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}):
        body = problem(client.post(path, content=b"x", headers=headers), 415, "unsupported-media-type")
        assert wanted in body["detail"]
    packed = {"Content-Type": wanted, "Content-Encoding": "gzip"}
    problem(client.post(path, content=b"x", headers=packed), 415, "unsupported-media-type")


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b'{"images": ["\xff"]}', b"[" * 100_000])
def test_what_is_no_json_is_unparseable(client: TestClient, body: bytes) -> None:
    answer = client.post("/encode", content=body, headers=JSON)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_errors_are_not_multiplied(client: TestClient) -> None:
    for body in ({"latents": [""] * 50_000}, {"latents": [[0.0]]} | {f"k{i}": 0 for i in range(1000)}):
        answer = client.post("/decode", json=body)
        assert answer.status_code == 422
        assert len(answer.content) < 4000


def test_rows_that_wait_too_long_are_dropped(make_client: Callable[..., TestClient]) -> None:
    client = make_client(queue_seconds=1e-9)
    problem(client.get("/sample"), 504, "deadline-exceeded")


def test_pixels_are_counted_over_all_pictures_of_a_request(
    make_client: Callable[..., TestClient], digits: Pixels
) -> None:
    client = make_client(max_pixels=2 * 28 * 28)
    picture = base64_png(digits[0])
    assert client.post("/encode", json={"images": [picture] * 2}).status_code == 200
    answer = client.post("/encode", json={"images": [picture] * 3})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/images/2"
    line = {"points": [{"label": 0}, *[{"image": picture}] * 3]}
    assert client.post("/interpolate", json=line).json()["errors"][0]["pointer"] == "/points/3/image"


def test_unknown_members_are_refused_without_an_echo(client: TestClient) -> None:
    answer = client.post("/decode", json={"latents": [[0.0] * 32], "s3cret": 1})
    assert answer.status_code == 422
    assert "s3cret" not in answer.text


def test_other_paths_and_methods(client: TestClient) -> None:
    for path in ("/nope", "/sample/", "/models/", "/models/a%2Fb/"):
        problem(client.get(path, follow_redirects=False), 404, "not-found")
    answer = client.get("/encode")
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"
    assert client.put("/decode/image").headers["allow"] == "GET, HEAD, POST"
    for path in ("/models/mnist", "/metrics", "/docs", "/openapi.json", "/", "/static/explorer/explorer.css"):
        assert client.put(path).headers["allow"] == "GET, HEAD", path


def test_an_unforeseen_error_tells_nothing(make_client: Callable[..., TestClient]) -> None:
    client = make_client()

    class Broken:
        def find(self, *_: object) -> None:
            raise RuntimeError("a secret at /srv/path")

    client.app_state["server"] = replace(client.app_state["server"], catalog=Broken())
    answer = client.get("/sample")
    problem(answer, 500, "internal-error")
    assert "secret" not in answer.text


def test_a_model_that_fails_is_an_internal_error(make_client: Callable[..., TestClient], caplog: Any) -> None:
    from app.errors import InferenceFailed

    client = make_client()

    class Broken:
        def run(self, *_: object) -> None:
            raise InferenceFailed("decoder failed")

    client.app_state["server"].catalog.find().graphs.sessions.decoder = Broken()
    body = problem(client.get("/sample"), 500, "inference-failed")
    assert "detail" not in body
    assert "decoder failed" in caplog.text


def test_metrics_count_requests_and_rows(make_client: Callable[..., TestClient]) -> None:
    client = make_client()
    client.get("/sample", params={"n": 3})
    client.get("/sample", params={"n": 0})
    client.get("/nope")
    text = client.get("/metrics").text
    assert 'vae_requests_total{operation="sample",status="200"} 1.0' in text
    assert 'vae_requests_total{operation="sample",status="422"} 1.0' in text
    assert 'vae_requests_total{operation="other",status="404"} 1.0' in text
    assert "vae_batch_rows_total 3.0" in text
    assert "vae_queue_rows 0.0" in text
    assert 'vae_request_seconds_count{operation="sample"} 2.0' in text


def test_the_documentation_page_works_offline(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert assets
    for asset in assets:
        assert "//" not in asset
        assert client.get(f"/{asset.removeprefix('/')}").status_code == 200, asset
    assert not re.search(r"<script(?![^>]*\bsrc=)", page.text)
