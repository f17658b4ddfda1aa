"""ETag, Cache-Control, 304, and answers from memory."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

NAMED = {"model": "mnist-2d", "version": 1}


@pytest.mark.parametrize(
    ("path", "query", "control"),
    [
        ("/sample/image", {}, "no-store"),
        ("/sample/image", NAMED, "no-store"),
        ("/sample/image", {"seed": 1}, "no-cache"),
        ("/sample/image", {"seed": 1, "model": "mnist-2d"}, "no-cache"),
        ("/sample/image", {"seed": 1} | NAMED, "public, max-age=31536000, immutable"),
        ("/sample", {"seed": 1} | NAMED, "public, max-age=31536000, immutable"),
        ("/sample/npy", {"seed": 1} | NAMED, "public, max-age=31536000, immutable"),
        ("/manifold/image", {"n": 2} | NAMED, "public, max-age=31536000, immutable"),
        ("/manifold/image", {"n": 2, "model": "mnist-2d"}, "no-cache"),
        ("/decode/image", {"latent": [0.5, 1]} | NAMED, "public, max-age=31536000, immutable"),
    ],
)
def test_an_answer_says_how_long_it_holds(client: TestClient, path: str, query: dict[str, Any], control: str) -> None:
    for _ in range(2):  # computed, and where it may be, from memory
        answer = client.get(path, params=query)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == control
        assert ("etag" in answer.headers) == (control != "no-store")


def test_a_client_that_has_it_is_told_so(client: TestClient) -> None:
    query = {"seed": 2, "n": 3} | NAMED
    first = client.get("/sample/image", params=query)
    etag = first.headers["etag"]
    for known in (etag, f"W/{etag}", f'"other", {etag}'):
        again = client.get("/sample/image", params=query, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
        assert again.headers["cache-control"] == first.headers["cache-control"]
    for other in ('"other"', etag[:-2] + '"', '"*"', "**"):
        assert client.get("/sample/image", params=query, headers={"If-None-Match": other}).content == first.content


def test_a_client_that_wants_none_gets_none(make_client: Callable[..., TestClient]) -> None:
    query, headers = {"seed": 2, "model": "mnist-2d"}, {"If-None-Match": " * "}
    for client in (make_client(), make_client(cache_bytes=0)):
        for _ in range(2):  # computed, and from memory
            answer = client.get("/sample/image", params=query, headers=headers)
            assert (answer.status_code, answer.content) == (304, b"")
        plain = client.get("/sample/image", params=query)
        assert plain.content
        assert (answer.headers["etag"], answer.headers["cache-control"]) == (plain.headers["etag"], "no-cache")
        assert client.get("/sample", params=query | {"n": 10_000}, headers=headers).status_code == 422
        assert client.get("/sample", params=query | {"model": "nope"}, headers=headers).status_code == 404
        unseeded = client.get("/sample", headers=headers)  # there is none that the client could have
        assert unseeded.status_code == 200
        assert client.get("/static/docs.js", headers=headers).status_code == 304
        assert client.get("/static/nope.js", headers=headers).status_code == 404


def test_an_error_is_no_answer_that_a_client_may_have(client: TestClient) -> None:
    headers = {"If-None-Match": client.get("/sample", params={"seed": 1}).headers["etag"]}
    assert client.get("/sample", params={"seed": 1, "n": 10_000}, headers=headers).status_code == 422
    refused = client.get("/sample", params={"seed": 1, "label": 3})
    assert refused.status_code == 422
    assert "etag" not in refused.headers
    assert client.get("/sample", params={"seed": 1, "model": "nope"}, headers=headers).status_code == 404


def test_an_etag_is_of_everything_that_the_answer_depends_on(client: TestClient) -> None:
    queries: list[tuple[str, dict[str, Any]]] = [
        ("/sample/image", {"seed": 1}),
        ("/sample/image", {"seed": 2}),
        ("/sample/image", {"seed": 1, "n": 2}),
        ("/sample/image", {"seed": 1, "n": 2, "columns": 1}),
        ("/sample/image", {"seed": 1, "format": "webp"}),
        ("/sample/image", {"seed": 1, "temperature": 0.5}),
        ("/sample/image", {"seed": 1, "model": "mnist", "version": 1}),
        ("/sample/image", {"seed": 1, "model": "mnist-2d"}),
        ("/sample/npy", {"seed": 1}),
        ("/sample", {"seed": 1}),
    ]
    answers = [client.get(path, params=query) for path, query in queries]
    assert len({answer.headers["etag"] for answer in answers}) == len(queries)
    # ... and of nothing else: the default model by its name is the same answer.
    named = client.get("/sample/image", params={"seed": 1, "model": "mnist"})
    assert named.headers["etag"] == answers[0].headers["etag"]
    assert named.content == answers[0].content


def test_memory_gives_what_was_computed_and_spares_the_model(make_client: Callable[..., TestClient]) -> None:
    client, without = make_client(), make_client(cache_bytes=0)
    for query in ({"seed": 3, "n": 5}, {"seed": 3, "n": 5, "model": "mnist-2d"}):
        for path in ("/sample", "/sample/image", "/sample/npy"):
            first, again, computed = (c.get(path, params=query) for c in (client, client, without))
            assert first.content == again.content == computed.content
            own = ("content-type", "etag", "cache-control", "x-seed", "x-model", "x-version")
            assert [again.headers.get(name) for name in own] == [computed.headers.get(name) for name in own]
    assert "vae_batch_rows_total 15.0" in client.get("/metrics").text  # of 30 rows asked for six times
    assert "vae_batch_rows_total 30.0" in without.get("/metrics").text


def test_unseeded_draws_are_drawn_anew(client: TestClient) -> None:
    assert len({client.get("/sample/npy").content for _ in range(5)}) == 5
