"""Which host names a server without keys answers to, and which pages' requests.

`tests/explorer/test_foreign_page.py` tries the same with a real browser.
"""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.conftest import MODELS

Make = Callable[..., TestClient]
FOREIGN = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "empty"}


@pytest.fixture(scope="module")
def local() -> Any:
    """A client over loopback of a server that listens there only."""
    with TestClient(create_app(Settings(models_dir=MODELS)), base_url="http://127.0.0.1:8000") as client:
        yield client


def is_refused(answer: Any) -> bool:
    if answer.status_code != 403:
        return False
    assert answer.json()["type"] == "urn:vaeserve:problem:foreign-page"
    assert answer.json()["detail"].split("list it in ")[1] in ("VAE_ALLOWED_HOSTS", "VAE_CORS_ORIGINS")
    return True


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "localhost.", "vae.localhost:8000", "127.0.0.1", "127.1.2.3:99", "[::1]:8000", ""],
)
def test_names_that_no_foreign_site_can_have_are_answered(local: TestClient, host: str) -> None:
    assert local.get("/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "attacker.example:8000",
        "localhost.attacker.example",
        "127.0.0.1.attacker.example",
        "attackerlocalhost",
        "localhost@attacker.example",
        "0x7f.1.attacker.example",
        "127.0.0.1:8000.attacker.example",
        "[::1].attacker.example",
        "[::1",
        "a" * 5000,
    ],
)
@pytest.mark.parametrize("path", ["/models", "/sample?n=1", "/metrics", "/openapi.json", "/v2", "/nothing"])
def test_other_names_are_not(local: TestClient, host: str, path: str) -> None:
    assert is_refused(local.get(path, headers={"Host": host}))


def test_open_paths_are_answered_under_every_name(local: TestClient) -> None:
    for path in ("/health/live", "/health/ready", "/v2/health/ready", "/docs", "/static/docs.js"):
        assert local.get(path, headers={"Host": "attacker.example"} | FOREIGN).status_code == 200


@pytest.mark.parametrize(
    ("settings", "base", "host", "is_answered"),
    [
        ({"allowed_hosts": "vae.example.org, other"}, "http://127.0.0.1", "VAE.example.org:80", True),
        ({"allowed_hosts": "vae.example.org, other"}, "http://127.0.0.1", "attacker.example", False),
        ({"allowed_hosts": "vae.example.org"}, "http://192.0.2.1", "attacker.example", False),
        ({"allowed_hosts": "*"}, "http://127.0.0.1", "attacker.example", True),
        ({"host": "0.0.0.0"}, "http://127.0.0.1", "service.namespace", True),
        ({}, "http://192.0.2.1", "service.namespace", True),  # behind a proxy of the test's own
        ({"api_key": "a-key-of-16-chars"}, "http://127.0.0.1", "service.namespace", True),
    ],
)
def test_which_names_are_checked(
    make_client: Make, settings: dict[str, Any], base: str, host: str, is_answered: bool
) -> None:
    client = make_client(**settings)
    client.base_url = base  # type: ignore[assignment]
    headers = {"Host": host, "Authorization": "Bearer a-key-of-16-chars"}
    assert is_refused(client.get("/models", headers=headers)) != is_answered


@pytest.mark.parametrize(
    "headers",
    [
        FOREIGN,
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "iframe", "Sec-Fetch-Mode": "navigate"},
        {"Origin": "http://attacker.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
        {"Origin": "http://testserver:81"},
    ],
)
def test_requests_of_foreign_pages_are_refused(make_client: Make, headers: dict[str, str]) -> None:
    client = make_client()
    text = {"Content-Type": "text/plain"} | headers
    assert is_refused(client.get("/sample/image?n=1", headers=headers))
    assert is_refused(client.post("/encode/files", files={"images": b"x"}, headers=headers))
    assert is_refused(client.post("/v2/models/mnist-2d/infer", content=b"{}", headers=text))
    assert is_refused(client.post("/nothing", headers=headers))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://behind.a.proxy"},
        {"Sec-Fetch-Site": "none", "Sec-Fetch-Dest": "document"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"},  # a link
        {"Origin": "http://testserver"},
        {"Origin": "https://testserver"},
    ],
)
def test_requests_of_own_pages_of_links_and_of_programs_are_answered(
    make_client: Make, headers: dict[str, str]
) -> None:
    assert make_client().get("/sample/image?n=1", headers=headers).status_code == 200


def test_a_foreign_form_that_opens_as_a_page_is_no_link(make_client: Make) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    assert is_refused(make_client().post("/encode/files", files={"images": b"x"}, headers=headers))


def test_named_origins_may_call(make_client: Make) -> None:
    named = make_client(cors_origins="https://example.org")
    assert named.get("/models", headers=FOREIGN | {"Origin": "https://example.org"}).status_code == 200
    assert is_refused(named.get("/models", headers=FOREIGN | {"Origin": "https://example.com"}))
    assert is_refused(named.get("/sample/image", headers=FOREIGN))  # an <img> without the attribute crossorigin
    assert make_client(cors_origins="*").get("/sample/image", headers=FOREIGN).status_code == 200


def test_a_refused_page_uses_up_nobodys_rate(make_client: Make) -> None:
    client = make_client(rate_limit="1/hour")
    assert is_refused(client.get("/models", headers=FOREIGN))
    assert client.get("/models").status_code == 200
    assert client.get("/models").status_code == 429


@pytest.mark.parametrize("text", ["vae.example.org:8000", "https://vae.example.org", "*.example.org", "a b"])
def test_what_is_no_host_name_stops_the_start(text: str) -> None:
    with pytest.raises(ValidationError, match="a host name looks like"):
        Settings(allowed_hosts=text)
