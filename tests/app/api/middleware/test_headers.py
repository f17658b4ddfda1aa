"""What answers tell browsers, and which other sites' pages may ask."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from app.settings import Settings

Make = Callable[..., TestClient]
ORIGIN = {"Origin": "https://example.org"}


def asked(client: TestClient, method: str = "POST") -> Any:
    headers = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,content-type"}
    return client.options("/encode", headers=ORIGIN | headers)


@pytest.mark.parametrize("path", ["/models", "/sample/image", "/nothing", "/metrics", "/static/docs.js", "/", "/docs"])
@pytest.mark.parametrize("settings", [{}, {"api_key": "a-key-of-16-chars"}])
def test_every_answer_is_marked(make_client: Make, path: str, settings: dict[str, Any]) -> None:
    headers = make_client(**settings).get(path, headers={"Accept": "text/html"}).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers.get_list("content-security-policy", split_commas=False) == [headers["content-security-policy"]]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "server" not in headers
    is_page = path in ("/", "/docs")
    assert ("script-src" in headers["content-security-policy"]) == (path == "/")
    assert is_page or headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_other_sites_are_kept_out_unless_they_are_named(make_client: Make) -> None:
    client = make_client()
    assert asked(client).status_code == 405
    assert "access-control-allow-origin" not in client.get("/models", headers=ORIGIN).headers


def test_a_named_site_may_ask_and_read(make_client: Make) -> None:
    client = make_client(cors_origins="https://example.org, http://localhost:3000", api_key="a-key-of-16-chars")
    answer = asked(client)  # without the key, which browsers do not send with it
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://example.org"
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()
    for method in ("GET", "HEAD"):
        assert asked(client, method).status_code == 200
        assert method in asked(client, method).headers["access-control-allow-methods"]
    assert asked(client, "DELETE").status_code == 400
    refused = client.get("/models", headers=ORIGIN)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://example.org"  # so that the page may read why
    assert "X-Seed" in refused.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in refused.headers
    other = client.get("/models", headers={"Origin": "https://example.com"})
    assert "access-control-allow-origin" not in other.headers
    assert (
        client.options(
            "/encode", headers={"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
        ).status_code
        == 400
    )


def test_answers_for_no_origin_are_not_given_to_one(make_client: Make) -> None:
    client = make_client(cors_origins="https://example.org")
    assert "Origin" in client.get("/sample/image", params={"seed": 1}).headers["vary"]
    assert "vary" not in make_client().get("/sample/image", params={"seed": 1}).headers


def test_every_site(make_client: Make) -> None:
    assert make_client(cors_origins="*").get("/models", headers=ORIGIN).headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("origins", ["example.org", "https://example.org/", "https://a.org/b", "null", "*.example.org"])
def test_what_is_no_origin_stops_the_start(origins: str) -> None:
    with pytest.raises(ValidationError, match="an origin looks like"):
        Settings(cors_origins=origins)
