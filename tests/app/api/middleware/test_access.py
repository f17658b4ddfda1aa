"""Who may ask what: every route of the application, with and without a key, within its rate and beyond."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.routing import Mount
from starlette.testclient import TestClient

from app.api.middleware.access import OPEN
from app.main import create_app
from app.security import keys as auth
from app.settings import Settings
from tests.conftest import MODELS, Pixels, base64_png
from tests.document import operations

KEY, ADMIN = "a-key-of-16-chars", "an-admin-key-of-16"
BEARER = {"Authorization": f"Bearer {KEY}"}
HTML = {"Accept": "text/html"}

Make = Callable[..., TestClient]


def problem(answer: Any, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:vaeserve:problem:{slug}"
    return body


@pytest.fixture(scope="module")
def guarded() -> FastAPI:
    return create_app(Settings(models_dir=MODELS, api_key=KEY, admin_key=ADMIN))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def client(guarded: FastAPI) -> Any:
    with TestClient(guarded, raise_server_exceptions=False) as client:
        yield client


def paths(app: FastAPI) -> list[str]:
    """Every path of the application, documented or not, with something in place of its parameters."""
    found = [route.path for route in app.routes if not isinstance(route, Mount)]  # type: ignore[attr-defined]
    return sorted(
        {path.replace("{name}", "mnist").replace("{model}", "mnist").replace("{version}", "2") for path in found}
    )


def test_nothing_is_open_but_what_is_listed(guarded: FastAPI, client: TestClient) -> None:
    assert len(paths(guarded)) > 50
    for path in [
        *paths(guarded),
        "/nothing",
        "/static",
        "/health",
        "/health/",
        "/health/live/",
        "//health/live",
        "/docs/x",
    ]:
        for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE", "TRACE"):
            answer = client.request(method, path)
            assert (answer.status_code == 401) == (path not in OPEN), (method, path, answer.status_code)


@pytest.mark.parametrize(
    "path",
    [
        "/health/live/../../models",
        "/static/../models",
        "/static/%2e%2e/models",
        "/static/..%2fmodels",
        "/%2e/models",
        "/health/live%00",
        "/HEALTH/LIVE",
        "/health/live;/../models",
        "/docs#/models",
        "/models?x=/health/live",
    ],
)
def test_no_spelling_of_a_path_leads_around(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (401, 404) or path.startswith("/docs#")
    assert "mnist" not in answer.text


def test_pages_and_their_files_are_open_but_hold_nothing(client: TestClient) -> None:
    assert client.get("/", headers=HTML).status_code == 200
    assert client.get("/static/explorer/app.js").status_code == 200
    assert client.get("/docs").status_code == 200
    problem(client.get("/"), 401, "unauthorized")
    problem(client.post("/", headers=HTML), 401, "unauthorized")
    problem(client.get("/openapi.json"), 401, "unauthorized")
    problem(client.get("/metrics"), 401, "unauthorized")


def test_a_refusal_says_what_to_send_and_repeats_nothing(client: TestClient) -> None:
    missing = client.get("/models")
    assert missing.headers["www-authenticate"] == "Bearer"
    assert problem(missing, 401, "unauthorized")["detail"] == "send Authorization: Bearer"
    wrong = client.get("/models", headers={"Authorization": "Bearer a-wrong-key-of-16"})
    assert problem(wrong, 401, "unauthorized")["detail"] == "this key is unknown to the server"
    assert "a-wrong-key" not in wrong.text
    assert problem(client.get("/v2/models/mnist/ready"), 401, "unauthorized")["error"]


def test_a_key_opens_every_operation(client: TestClient, digits: Pixels) -> None:
    for path in ("/models", "/sample?seed=1", "/sample/image", "/openapi.json", "/metrics", "/v2"):
        assert client.get(path, headers=BEARER).status_code == 200
    body = {"images": [base64_png(digits[0])]}
    assert client.post("/encode", json=body, headers=BEARER).status_code == 200
    problem(client.post("/encode", json=body), 401, "unauthorized")


def test_management_takes_admin_keys_alone(client: TestClient) -> None:
    problem(client.post("/models/reload"), 401, "unauthorized")
    refused = client.post("/models/reload", headers=BEARER)
    assert problem(refused, 403, "forbidden")["detail"] == "this key is no admin key"
    problem(client.post("/v2/repository/models/mnist/load", headers=BEARER), 403, "forbidden")
    admin = {"Authorization": f"Bearer {ADMIN}"}
    assert client.post("/models/reload", headers=admin).status_code == 200
    assert client.get("/sample", headers=admin).status_code == 200


def test_what_was_answered_to_a_key_is_kept_by_nobody_else(client: TestClient) -> None:
    named = {"model": "mnist", "version": 2, "seed": 1}
    kept = client.get("/sample", params=named, headers=BEARER).headers["cache-control"]
    assert kept == "private, max-age=31536000, immutable"
    assert client.get("/sample", params={"seed": 1}, headers=BEARER).headers["cache-control"] == "private, no-cache"
    assert client.get("/sample", headers=BEARER).headers["cache-control"] == "no-store"


def test_the_document_says_the_same(guarded: FastAPI, client: TestClient) -> None:
    document = client.get("/openapi.json", headers=BEARER).json()
    assert document["security"] == [{"api_key": []}, {}]
    for operation in operations(document):
        is_open = operation.raw.get("security") == []
        assert is_open == (operation.path in OPEN), operation.id
        assert is_open != (401 in operation.answers), operation.id
        assert is_open != (429 in operation.answers), operation.id


def test_who_asks_for_keys(make_client: Make, tmp_path: Path) -> None:
    empty = tmp_path / "keys"
    empty.write_text("# nobody yet\n")
    for settings, status in (
        ({}, 200),
        ({"admin_key": ADMIN}, 200),
        ({"api_key": KEY}, 401),
        ({"api_keys": f"web:{KEY}"}, 401),
        ({"keys_file": empty}, 401),
        ({"auth": "keys"}, 401),
        ({"auth": "none", "api_key": KEY}, 200),
    ):
        assert make_client(**settings).get("/models").status_code == status, settings


def test_a_file_of_keys_is_rotated_without_a_restart(
    make_client: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_CHECK_SECONDS", -1)
    keys = tmp_path / "keys"
    keys.write_text(f"web:{KEY}\n")
    client = make_client(keys_file=keys)
    new = {"Authorization": "Bearer the-next-key-of-web"}
    assert [client.get("/models", headers=headers).status_code for headers in (BEARER, new)] == [200, 401]
    keys.write_text(f"web:{KEY}\nweb:the-next-key-of-web admin\n")
    assert [client.get("/models", headers=headers).status_code for headers in (BEARER, new)] == [200, 200]
    assert client.post("/models/reload", headers=new).status_code == 200
    keys.write_text("web:the-next-key-of-web\n")
    assert [client.get("/models", headers=headers).status_code for headers in (BEARER, new)] == [401, 200]
    problem(client.post("/models/reload", headers=new), 403, "forbidden")


def test_one_request_too_many(make_client: Make) -> None:
    client = make_client(api_keys=f"web:{KEY} batch:another-key-of-16", rate_limit="3/hour")
    answers = [client.get("/models", headers=BEARER) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0"]
    assert answers[0].headers["ratelimit-policy"] == '"3/3600s";q=3;w=3600'
    assert answers[0].headers["ratelimit"].startswith('"3/3600s";r=2;t=3')
    refused = client.post("/encode", content=b"{", headers=BEARER)
    problem(refused, 429, "rate-exceeded")
    assert 3590 <= int(refused.headers["retry-after"]) <= 3600
    assert refused.headers["ratelimit-remaining"] == "0"
    other = client.get("/models", headers={"Authorization": "Bearer another-key-of-16"})
    assert (other.status_code, other.headers["ratelimit-remaining"]) == (200, "2")
    assert [client.get("/models").status_code for _ in range(5)] == [401] * 5  # and not counted for anybody
    assert [client.get(path).status_code for path in ("/health/live", "/health/ready", "/docs")] == [200] * 3


def test_whoever_waits_as_long_as_is_said_gets_through(make_client: Make) -> None:
    client = make_client(rate_limit="2/second")
    refused = next(answer for _ in range(1000) if (answer := client.get("/models")).status_code == 429)
    time.sleep(int(refused.headers["retry-after"]))
    assert client.get("/models").status_code == 200


def test_without_keys_an_address_has_the_rate(make_client: Make) -> None:
    client = make_client(rate_limit="1/hour")
    assert [client.get("/models").status_code for _ in range(2)] == [200, 429]
    assert "ratelimit" not in make_client().get("/models").headers


def test_a_key_may_have_a_rate_of_its_own(make_client: Make, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"slow:{KEY} rate=1/hour\nfast:another-key-of-16\n")
    client = make_client(keys_file=keys)
    assert [client.get("/models", headers=BEARER).status_code for _ in range(2)] == [200, 429]
    other = client.get("/models", headers={"Authorization": "Bearer another-key-of-16"})
    assert "ratelimit" not in other.headers


def test_behind_a_prefix_the_same_is_open(make_client: Make) -> None:
    client = make_client(api_key=KEY, root_path="/vae")
    assert client.get("/health/live").status_code == 200
    assert client.get("/models").status_code == 401


def test_a_key_costs_little(make_client: Make) -> None:
    """Not a timed test: with a thousand keys each request still compares them all, and answers."""
    several = ",".join(f"n{index}:{os.urandom(12).hex()}" for index in range(1000))
    client = make_client(api_keys=f"{several},web:{KEY}")
    assert client.get("/models", headers=BEARER).status_code == 200
