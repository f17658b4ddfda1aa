"""The formats of /metrics, as scrapers ask for them."""

from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from tests.conftest import MODELS, Start

PLAIN, NEWER, OPEN = (
    "text/plain; version=0.0.4; charset=utf-8",
    "text/plain; version=1.0.0; charset=utf-8",
    "application/openmetrics-text; version=1.0.0; charset=utf-8",
)
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;"
    "q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/plain", PLAIN),
        ("text/html,application/xhtml+xml,*/*;q=0.8", PLAIN),
        ("text/plain;version=0.0.4", PLAIN),
        ("text/plain; version=0.0.4; charset=utf-8", PLAIN),
        ('TEXT/PLAIN; VERSION="0.0.4"', PLAIN),
        ("text/plain;version=0.0.4;q=1,*/*;q=0.1", PLAIN),
        ("text/plain;version=1.0.0", NEWER),
        ("application/openmetrics-text", OPEN),
        ("application/openmetrics-text; version=1.0.0", OPEN),
        (PROMETHEUS, OPEN),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5", PLAIN),
        ("application/openmetrics-text;version=9.9.9,text/plain;version=1.0.0;q=0.5", NEWER),
        ("application/openmetrics-text;q=0.2,text/plain;version=0.0.4;q=0.3", PLAIN),
        ("application/openmetrics-text;q=0,text/plain;version=1.0.0;q=0.1", NEWER),
        ("text/plain;version=1.0.0;q=nonsense,;;=,q", PLAIN),
        ("application/json", PLAIN),
    ],
)
def test_a_scraper_gets_what_it_asks_for(client: TestClient, accept: str, content_type: str) -> None:
    answer = client.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == content_type
    assert values(answer)["vae_slots"] >= 1


def values(answer: Any) -> dict[str, float]:
    """The samples without labels, by name, as the parser of the format reads them."""
    is_open = answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n") == is_open
    parse = openmetrics.text_string_to_metric_families if is_open else text_string_to_metric_families
    return {it.name: it.value for family in parse(answer.text) for it in family.samples if not it.labels}


def test_accept_headers_may_be_several(client: TestClient) -> None:
    headers = [("Accept", "text/plain;q=0.5"), ("Accept", "application/openmetrics-text")]
    assert client.get("/metrics", headers=headers).headers["content-type"] == OPEN


def test_the_formats_have_the_same_samples_of_several_processes(start: Start) -> None:
    _, server = start(models_dir=MODELS / "mnist-2d/2", workers=2)
    assert server.get("/sample?n=3").status_code == 200
    found = [values(server.get("/metrics", headers={"Accept": accept})) for accept in (PLAIN, NEWER, OPEN)]
    assert found[0].keys() == found[1].keys() == found[2].keys()
    assert {"vae_slots", "vae_workers", "vae_dropped_rows_total"} <= found[0].keys()
