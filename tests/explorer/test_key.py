"""The pages of a server that asks for keys: they ask for it once, and send it."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import MODELS, servers
from tests.explorer.conftest import READY, Visit

KEY = "the-right-key-of-16"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where a server with a key answers."""
    with servers() as start:
        _, client = start(models_dir=MODELS, log_level="warning", api_keys=f"web:{KEY}")
        yield str(client.base_url).rstrip("/")


def give(page: Any, key: str) -> None:
    page.get_by_role("textbox", name="API key").fill(key)
    page.keyboard.press("Enter")


def test_the_explorer_asks_once(visit: Visit) -> None:
    refused, sent = [], set[str]()

    def watch(answer: Any) -> None:
        path, key = urlsplit(answer.url).path, answer.request.headers.get("authorization")
        if answer.status == 401:
            refused.append(key)
        elif key == f"Bearer {KEY}":
            sent.add(path)

    page = visit(allow="401", ready="dialog#key[open]", prepare=lambda page: page.on("response", watch))
    give(page, "a-wrong-key")
    page.wait_for_selector("text=The server refused this key.")
    give(page, KEY)
    page.wait_for_selector(READY)
    assert refused == [None, "Bearer a-wrong-key"]
    assert {"/models", "/posteriors", "/decode/image"} <= sent
    page.locator("#map .pinned .code-button").click()
    assert KEY not in page.inner_text("dialog#code")
    assert "VAE_API_KEY" in page.inner_text("[data-code=curl]")
    page.reload()
    page.wait_for_selector(READY)
    assert len(refused) == 2


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("OpenAPI", '{"openapi":'),
        ("Models as JSON", '{"default":'),
        ("Metrics", "# HELP"),
        ("mnist-2d 2 as JSON", '{"name":"mnist-2d","version":2'),
    ],
)
@pytest.mark.parametrize("button", ["left", "middle"])
def test_links_bring_the_key(visit: Visit, name: str, begins: str, button: Any) -> None:
    page = visit(allow="401", ready="dialog#key[open]")
    give(page, KEY)
    page.wait_for_selector(READY)
    with page.expect_popup() as opened:
        page.get_by_role("link", name=name, exact=True).click(button=button)
    assert opened.value.inner_text("body").startswith(begins)
    assert KEY not in opened.value.url


def test_the_documentation_asks_once_and_tries_with_it(visit: Visit, address: str) -> None:
    page = visit(allow="401", ready="dialog#key[open]")
    give(page, KEY)
    page.wait_for_selector(READY)
    page.goto(f"{address}/docs")  # the explorer's key is this page's, too
    page.wait_for_selector("#operations-models-list_models")
    page.locator("#operations-models-list_models").click()
    page.get_by_role("button", name="Execute").click()
    page.wait_for_selector(".live-responses-table")
    assert page.locator(".live-responses-table .response .response-col_status").first.inner_text().startswith("200")


def test_the_documentation_asks_for_itself(visit: Visit, address: str) -> None:
    page = visit(allow="401", ready="dialog#key[open]")
    page.goto(f"{address}/docs")
    page.wait_for_selector("dialog#key[open]")
    give(page, KEY)
    page.wait_for_selector("#operations-models-list_models")
