"""Management routes: who may use them, and what they change."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.conftest import MODELS, damage, put_bundle

KEY = "a-key-of-16-chars"
BEARER = {"Authorization": f"Bearer {KEY}"}
ROUTES = ["/models/reload", "/models/mnist-2d/load", "/models/mnist-2d/unload"]

Make = Callable[..., TestClient]


def problem(answer: Any, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"urn:vaeserve:problem:{slug}"
    return body


def manage(client: TestClient, path: str, **query: Any) -> Any:
    answer = client.post(path, params=query, headers=BEARER)
    assert answer.status_code == 200, answer.text
    return answer.json()


def versions(*pairs: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "version": version} for name, version in pairs]


def test_without_an_admin_key_there_are_no_such_routes(make_client: Make) -> None:
    for client in (make_client(), make_client(admin_key="")):
        for path in ROUTES[1:]:
            problem(client.post(path, headers=BEARER), 404, "not-found")
        # ... and "reload" is the name of a model like any other.
        problem(client.post(ROUTES[0], headers=BEARER), 405, "method-not-allowed")
        assert "manage" not in client.get("/openapi.json").text


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer a-key-of-16-charz"}, {"Authorization": f"Basic {KEY}"}]
)
def test_the_key_is_asked_for_before_anything_else(make_client: Make, path: str, headers: dict[str, str]) -> None:
    for settings in ({}, {"workers": 2}):
        client = make_client(admin_key=KEY, **settings)
        refused = client.post(path.replace("mnist-2d", "nope"), params={"version": "x"}, headers=headers)
        problem(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert KEY not in refused.text


def test_a_model_is_unloaded_and_loaded(make_client: Make, models_copy: Path) -> None:
    put_bundle(models_copy, 2)
    client = make_client(admin_key=KEY)
    assert client.get("/sample").json()["version"] == 2
    assert manage(client, "/models/mnist-2d/unload", version=2) == {"unloaded": versions(("mnist-2d", 2))}
    assert manage(client, "/models/mnist-2d/unload", version=2) == {"unloaded": []}
    assert client.get("/sample").json()["version"] == 1
    problem(client.get("/sample", params={"version": 2}), 404, "unknown-model")
    assert [model["versions"] for model in client.get("/models").json()["models"]] == [[1]]
    assert manage(client, "/models/mnist-2d/load") == {"loaded": versions(("mnist-2d", 1), ("mnist-2d", 2))}
    assert client.get("/sample").json()["version"] == 2


def test_a_reload_says_what_changed(make_client: Make, models_copy: Path) -> None:
    put_bundle(models_copy, 1, name="gone")
    client = make_client(admin_key=KEY, default_model="mnist-2d")
    (models_copy / "gone").rename(models_copy.parent / "gone")
    put_bundle(models_copy, 2)
    damage(put_bundle(models_copy, 3))
    assert manage(client, "/models/reload") == {
        "loaded": versions(("mnist-2d", 2)),
        "unloaded": versions(("gone", 1)),
        "kept": versions(("mnist-2d", 1)),
        "refused": versions(("mnist-2d", 3)),
    }


def test_what_cannot_be_done_is_told_without_a_path(make_client: Make, models_copy: Path) -> None:
    client = make_client(admin_key=KEY)
    damage(put_bundle(models_copy, 2))

    def refused(path: str, status: int, slug: str, **query: Any) -> None:
        answer = client.post(path, params=query, headers=BEARER)
        problem(answer, status, slug)
        assert str(models_copy) not in answer.text

    refused("/models/mnist-2d/load", 422, "bundle-refused", version=2)
    refused("/models/mnist-2d/load", 422, "invalid-input", version=0)
    refused("/models/mnist-2d/load", 422, "invalid-input", verzion=1)
    refused("/models/mnist-2d/load", 404, "unknown-model", version=9)
    refused("/models/..%2Fmnist-2d/load", 404, "not-found")
    refused("/models/nope/unload", 404, "unknown-model")
    refused("/models/mnist-2d/unload", 409, "conflict", version=1)
    (models_copy / "mnist-2d").rename(models_copy.parent / "elsewhere")
    refused("/models/reload", 422, "bundle-refused")
    assert client.get("/sample").status_code == 200


@pytest.mark.parametrize("path", ROUTES)
def test_of_several_workers_none_changes_alone(make_client: Make, path: str) -> None:
    body = problem(make_client(admin_key=KEY, workers=2).post(path, headers=BEARER), 409, "conflict")
    assert "SIGHUP" in body["detail"]


def test_a_model_may_be_called_reload(make_client: Make, models_copy: Path) -> None:
    put_bundle(models_copy, 1, name="reload")
    client = make_client(admin_key=KEY, default_model="mnist-2d")
    assert client.get("/models/reload").json()["name"] == "reload"
    assert client.put("/models/reload").headers["allow"] == "GET, HEAD, POST"
    assert manage(client, "/models/reload/unload") == {"unloaded": versions(("reload", 1))}
    assert manage(client, "/models/reload")["loaded"] == []


def test_what_a_client_has_kept_is_old_after_a_reload(make_client: Make, models_copy: Path) -> None:
    client, query = make_client(admin_key=KEY), {"seed": 1, "n": 3}
    first = client.get("/sample/image", params=query)
    assert first.headers["cache-control"] == "no-cache"
    known = {"If-None-Match": first.headers["etag"]}
    assert client.get("/sample/image", params=query, headers=known).status_code == 304
    manage(client, "/models/reload")  # where nothing changes
    assert client.get("/sample/image", params=query, headers=known).status_code == 304
    put_bundle(models_copy, 1, like="mnist-2d/2")
    manage(client, "/models/reload")
    again = client.get("/sample/image", params=query, headers=known)
    assert again.status_code == 200
    assert again.headers["etag"] != first.headers["etag"]
    assert again.content != first.content


def test_the_document_has_the_routes_and_their_key() -> None:
    document = create_app(Settings(models_dir=MODELS, admin_key=KEY)).openapi()  # type: ignore[arg-type]
    validate(document)
    operations = {op["operationId"]: op for path in document["paths"].values() for op in path.values()}
    ours = {"reload_models", "load_model", "unload_model"}
    secured = {name for name, op in operations.items() if {"admin_key": []} in op.get("security", [])}
    assert secured == ours | {"v2_repository_load", "v2_repository_unload"}
    assert document["components"]["securitySchemes"]["admin_key"]["scheme"] == "bearer"
    statuses = {name: set(operations[name]["responses"]) for name in ours}
    assert statuses["load_model"] == statuses["unload_model"] == {"200", "401", "403", "404", "409", "422", "429"}
    assert statuses["reload_models"] == {"200", "401", "403", "409", "422", "429"}
    assert "HTTPValidationError" not in json.dumps(document)
    assert KEY not in json.dumps(document)
