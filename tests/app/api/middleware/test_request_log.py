"""What becomes of every request, whatever it asks: an id, counts, and a line where it matters."""

import logging
import re
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.errors import InferenceFailed
from app.main import create_app
from app.settings import Settings
from tests.conftest import MODELS, Log, full


def test_every_answer_carries_an_id(client: TestClient) -> None:
    made = set()
    for path in ("/", "/sample", "/sample?n=0", "/nope", "/metrics", "/static/docs.html", "/docs", "/health/live"):
        made.add(client.get(path).headers["x-request-id"])
    made.add(client.post("/encode", content=b"x").headers["x-request-id"])
    assert len(made) == 9
    assert all(re.fullmatch("[0-9a-f]{16}", name) for name in made)


@pytest.mark.parametrize("name", ["a", "x" * 128, "0af7651916cd43dd", "svc/1:2+3=4@host~._-"])
def test_the_clients_id_is_kept(client: TestClient, name: str) -> None:
    assert client.get("/sample", headers={"X-Request-ID": name}).headers["x-request-id"] == name


@pytest.mark.parametrize("name", ["", "x" * 129, "with space", 'quote"', "<script>", "tab\t", "\xe9", "a,b", "a\x7f"])
def test_another_is_replaced(client: TestClient, name: str) -> None:
    answer = client.get("/sample", headers={"X-Request-ID": name.encode("latin-1")})
    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


@pytest.fixture
def broken() -> FastAPI:
    """An application two of whose routes raise what nobody has thought of."""
    app = create_app(Settings(models_dir=MODELS))

    async def fail() -> None:
        raise RuntimeError("nobody has thought of it")

    app.get("/broken", operation_id="broken")(fail)
    return app


def test_an_error_in_the_log_carries_the_id_of_its_answer(broken: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(broken, raise_server_exceptions=False) as client:
        answer = client.get("/broken", headers={"X-Request-ID": "this-one"})
        assert answer.status_code == 500
        assert answer.headers["x-request-id"] == "this-one"
        assert answer.json()["type"] == "urn:vaeserve:problem:internal-error"
        assert 'vae_requests_total{operation="broken",status="500"} 1.0' in client.get("/metrics").text
    (record,) = [record for record in caplog.records if record.name == "app.requests"]
    assert record.levelno == logging.ERROR
    assert record.fields["problem"] == "internal-error"  # type: ignore[attr-defined]


def test_a_failure_that_was_thought_of_does_so_too(
    make_client: Callable[..., TestClient], logged: Callable[[], Log]
) -> None:
    client = make_client()

    class Broken:
        def run(self, *_: object) -> None:
            raise InferenceFailed("decoder failed")

    client.app_state["server"].catalog.find().graphs.sessions.decoder = Broken()
    client.get("/sample?n=1", headers={"X-Request-ID": "that-one"})
    failure, line = [line for line in logged() if line.get("request_id") == "that-one"]
    assert (failure["message"], failure["logger"]) == ("decoder failed", "app.api.middleware.errors")
    assert failure["exception"].endswith("app.errors.InferenceFailed: decoder failed")
    assert (line["level"], line["problem"], line["status"]) == ("error", "inference-failed", 500)


def test_what_is_asked_again_and_again_is_told_at_debug_alone(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "app.requests"):
        for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/metrics"):
            client.get(path)
            assert caplog.records[-1].levelno == logging.DEBUG
        client.get("/nope/metrics")
        assert caplog.records[-1].levelno == logging.INFO


def test_the_key_is_told_by_its_name(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "app.requests"):
        client.get("/sample", headers={"vae.key": "forged"})
    assert caplog.records[-1].fields["key"] is None  # type: ignore[attr-defined]


def test_a_stale_model_is_not_told_of_the_next_request(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "app.requests"):
        client.get("/sample?model=mnist-2d")
        assert caplog.records[-1].fields["model"] == "mnist-2d"  # type: ignore[attr-defined]
        client.get("/models")
        assert caplog.records[-1].fields["model"] is None  # type: ignore[attr-defined]


def test_refusals_are_counted_and_mistakes_are_not(make_client: Callable[..., TestClient]) -> None:
    client = make_client(queue_rows=4, max_body_bytes=1000, admin_key="a-key-of-16-chars")
    with full(client):
        client.get("/sample?n=4")
    client.post("/encode", content=b"x" * 2000, headers={"Content-Type": "application/json"})
    client.post("/models/reload")
    client.get("/sample?n=0")
    client.get("/nope")
    client.app_state["server"].refused["too-many-connections"] += 3
    text = client.get("/metrics").text
    found = dict(re.findall(r'^vae_rejections_total{reason="([\w-]+)"} (\S+)$', text, re.MULTILINE))
    expected = {"overloaded": "1.0", "body-too-large": "1.0", "unauthorized": "1.0", "too-many-connections": "3.0"}
    assert {name: value for name, value in found.items() if value != "0.0"} == expected
    assert found["deadline-exceeded"] == "0.0"


def test_of_what_a_full_queue_refuses_few_lines_tell_and_how_many_do_not(caplog: pytest.LogCaptureFixture) -> None:
    body = {"latents": [[0.0] * 32]}
    with TestClient(create_app(Settings(models_dir=MODELS, queue_rows=1))) as client, full(client):
        for _ in range(200):
            assert client.post("/decode", json=body).status_code == 503
        told = [record for record in caplog.records if record.name == "app.requests"]
        assert 1 <= len(told) < 150
        metrics = client.get("/metrics").text
        assert 'vae_rejections_total{reason="overloaded"} 200.0' in metrics
    with TestClient(create_app(Settings(models_dir=MODELS, queue_rows=1))) as client:
        caplog.clear()
        with full(client):
            for _ in range(5):
                client.post("/decode", json=body)
        caplog.set_level(logging.INFO)
        client.get("/sample?n=1")
        fields = [record.fields for record in caplog.records if record.name == "app.requests"]  # type: ignore[attr-defined]
        assert len(fields) + sum(field["untold"] or 0 for field in fields) == 6
