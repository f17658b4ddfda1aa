"""What every operation does around its own lines: reads queries and bodies, times, counts."""

import json
from codecs import BOM_UTF8
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from app.api import ROUTERS
from app.api.routing.operation import OperationRoute
from tests.conftest import Pixels, base64_png, npy, png, pointers

BODY = {"latents": [[0.0, 0.0]]}
INFER = {"inputs": [{"name": "latent", "shape": [1, 2], "datatype": "FP32", "data": [0.5, 1]}]}


def test_every_model_operation_is_one(client: TestClient) -> None:
    routes = [route for module in ROUTERS for route in module.router.routes if isinstance(route, APIRoute)]
    ordinary = {route.path for route in routes if not isinstance(route, OperationRoute)}
    assert ordinary == {"/", "/docs", "/health/live", "/health/ready", "/models", "/models/{name}"}


@pytest.mark.parametrize("path", ["/encode", "/reconstruct", "/score"])
def test_where_the_time_went_is_told(client: TestClient, digits: Pixels, path: str) -> None:
    answer = client.post(path, json={"images": [base64_png(digits[0])]})
    queue, inference, total = (float(answer.headers[f"x-{name}-time"]) for name in ("queue", "inference", "total"))
    assert queue >= 0
    assert inference > 0
    assert total >= queue + inference - 0.002  # milliseconds, each rounded


def test_an_answer_from_memory_took_no_inference(client: TestClient) -> None:
    for _ in range(2):
        answer = client.get("/sample/image", params={"seed": 77})
    assert answer.headers["x-inference-time"] == "0.000"
    assert "x-total-time" in answer.headers


def test_queue_depth_is_told_of_every_model(client: TestClient) -> None:
    models = client.get("/models").json()
    assert models["queued_rows"] == 0
    assert {model["queued_rows"] for model in models["models"]} == {0}


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("model=mnist&model=mnist", "/query/model"),
        ("sede=1", "/query"),
        ("sede=1&sede=2", "/query"),
        ("version=0", "/query/version"),
        ("version=x", "/query/version"),
        ("version=", "/query/version"),
        ("model=%ff%fe", None),
        ("&".join(["version=1"] * 5000), "/query"),
    ],
)
def test_queries_are_checked(client: TestClient, query: str, pointer: str | None) -> None:
    answer = client.post(f"/decode?{query}", json=BODY)
    if pointer is None:
        assert answer.status_code == 404
    else:
        assert pointers(answer) == [pointer]
    assert "sede" not in answer.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 200),
        ({"Content-Type": "Application/JSON; charset=utf-8"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "identity"}, 200),
    ],
)
def test_media_types(client: TestClient, headers: dict[str, str], status: int) -> None:
    answer = client.post("/decode?model=mnist-2d", content=json.dumps(BODY).encode(), headers=headers)
    assert answer.status_code == status
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 5000, b'{"latents": [[NaN, 0]]}'])
def test_bodies_that_are_not_json(client: TestClient, body: bytes) -> None:
    answer = client.post("/decode", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_wrong_in_thousands_of_places_is_told_so_at_once(client: TestClient) -> None:
    body = json.dumps(BODY | {f"key{i}": 1 for i in range(2_000)})
    answer = client.post("/decode", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert len(answer.content) < 1000
    assert "key7" not in answer.text


def test_files_with_an_unknown_charset(client: TestClient) -> None:
    content = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\nx\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"}
    assert client.post("/encode/files", content=content, headers=headers).status_code in (400, 422)


def test_methods_and_paths_that_are_not_there(client: TestClient) -> None:
    assert client.get("/encode").status_code == 405
    assert client.get("/encode").headers["allow"] == "POST"
    assert client.post("/sample").status_code == 405
    assert client.get("/sample/").status_code == 404
    assert client.head("/encode").status_code == 405
    head, whole = client.head("/sample/image?seed=1"), client.get("/sample/image?seed=1")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", whole.headers["etag"])
    assert head.headers["content-length"] == str(len(whole.content))


def test_operations_are_counted_by_name(make_client: Callable[..., TestClient], digits: Pixels) -> None:
    client = make_client()
    calls: list[tuple[str, Any]] = [
        ("encode_files", lambda: client.post("/encode/files", files={"images": png(digits[0])})),
        ("encode_npy", lambda: client.post("/encode/npy", content=npy(digits[:1]), headers={"Content-Type": "x/y"})),
        ("decode_one_image", lambda: client.get("/decode/image", params={"latent": [0, 0]})),
    ]
    for name, call in calls:
        status = call().status_code
        assert f'vae_requests_total{{operation="{name}",status="{status}"}} 1.0' in client.get("/metrics").text


@pytest.mark.parametrize("query", ["latent[]=0.5&latent[]=1", "latent%5B%5D=1&latent%5B%5D=2&seed=1", "x=1&x=1", "=&="])
def test_an_unknown_parameter_is_called_that_however_often_it_is_given(client: TestClient, query: str) -> None:
    for path in ("/decode/image", "/sample"):
        answer = client.get(f"{path}?{query}")
        assert pointers(answer) == ["/query"]
        assert answer.json()["errors"][0]["detail"].startswith("an unknown parameter; there are ")


def test_a_byte_order_mark_in_front_of_json_is_skipped(client: TestClient) -> None:
    small, large = {"latents": [[0.5, 1.0]]}, {"latents": [[0.5, 1.0]], "x" * 300_000: 1}
    headers = {"Content-Type": "application/json"}
    for path, body in (("/decode?model=mnist-2d", small), ("/v2/models/mnist-2d.decoder/infer", INFER)):
        plain = client.post(path, json=body)
        assert plain.status_code == 200
        assert client.post(path, content=BOM_UTF8 + json.dumps(body).encode(), headers=headers).json() == plain.json()
    for content, status in ((json.dumps(large).encode(), 422), (b"", 400), (BOM_UTF8 + b"{}", 400)):
        assert client.post("/decode", content=BOM_UTF8 + content, headers=headers).status_code == status


def test_an_unknown_parameter_is_answered_with_those_that_there_are(client: TestClient) -> None:
    answer = client.get("/sample?models=mnist&what=1")
    assert pointers(answer) == ["/query"]
    (error,) = answer.json()["errors"]
    assert error["detail"].startswith("an unknown parameter; there are ")
    assert {"model", "version", "n", "seed"} <= set(
        error["detail"].removeprefix("an unknown parameter; there are ").split(", ")
    )
    assert "models" not in error["detail"]
