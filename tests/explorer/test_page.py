"""The page around the panels: its weight, its policy, its recovery, its key, its code, and who can use it."""

import os
import shlex
import subprocess
import sys
from typing import Any

import httpx2
import numpy as np
import pytest

from app import __version__
from tests.conftest import MODELS, ROOT, free_port, is_ready, launch, servers
from tests.explorer.conftest import READY, Visit, canvas_pixels, comes, grey, patient, rest
from tests.processes import PATIENCE, until

DIGIT = "#map .pinned canvas"
AXE = ROOT / "tests/clients/node_modules/axe-core/axe.min.js"


def test_it_is_light(visit: Visit, address: str) -> None:
    sizes: dict[str, int] = {}

    def count(page: Any) -> None:
        def note(answer: Any) -> None:
            path = answer.url.removeprefix(address)
            if path.startswith(("/?", "/static/")):
                sizes[path] = len(answer.body())

        page.on("requestfinished", lambda request: note(request.response()))

    page = visit(prepare=count)
    page.wait_for_load_state("networkidle")
    print(f"{sum(sizes.values()) / 1000:.0f} kB in {len(sizes)} files")
    assert len(sizes) > 10
    assert sum(sizes.values()) < 300_000


def test_every_file_of_the_page_is_served_as_what_it_is(address: str) -> None:
    folder = ROOT / "app/static/explorer"
    kinds = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
    for path in folder.rglob("*.*"):
        if path.suffix in kinds:
            answer = httpx2.get(f"{address}/static/explorer/{path.relative_to(folder)}")
            assert (answer.status_code, answer.headers["content-type"]) == (200, kinds[path.suffix]), path


def test_nothing_of_the_page_is_elsewhere() -> None:
    for path in (ROOT / "app/static/explorer").rglob("*.*"):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
        assert "http://" not in text, path
        assert "https://" not in text, path


def test_links_to_answers_are_plain_where_no_key_is_asked_for(visit: Visit, address: str) -> None:
    page = visit()
    page.get_by_role("link", name="OpenAPI").click()
    page.wait_for_url(f"{address}/openapi.json")


def test_it_works_behind_a_path_prefix(browser: Any) -> None:
    with servers() as start:
        _, client = start(root_path="/vae", models_dir=MODELS, log_level="warning")
        address = str(client.base_url).rstrip("/")
        page = patient(browser.new_page())
        asked: list[str] = []

        def strip(route: Any) -> None:  # as a reverse proxy does
            asked.append(route.request.url)
            route.continue_(url=route.request.url.replace("/vae/", "/", 1))

        page.route("**", strip)
        page.goto(f"{address}/vae/")
        page.wait_for_selector(READY)
        page.close()
        assert all(url.startswith(f"{address}/vae/") for url in asked)


def test_a_server_that_takes_few_rows_has_a_manifold_too(browser: Any) -> None:
    with servers() as start:
        _, client = start(max_rows=70, models_dir=MODELS, log_level="warning")
        page, sizes = patient(browser.new_page()), []

        def note(answer: Any) -> None:
            if answer.request.method == "POST":
                sizes.append((answer.status, len(answer.request.post_data_json["latents"])))

        page.on("response", note)
        page.goto(str(client.base_url))
        page.wait_for_selector(READY)
        assert comes(page, lambda: any(status == 200 and size > 16 for status, size in sizes))
        rest(page, 500)
        page.close()
    assert max(size for status, size in sizes if status == 200) <= 64


def test_it_stays_usable_while_the_server_refuses(visit: Visit) -> None:
    page = visit(allow="503")
    before = page.get_attribute(DIGIT, "data-latent")
    refusal = {
        "status": 503,
        "content_type": "application/problem+json",
        "headers": {"Retry-After": "1"},
        "body": '{"type": "urn:vaeserve:problem:overloaded", "title": "Not ready or overloaded", "status": 503}',
    }
    page.route("**/decode/**", lambda route: route.fulfill(**refusal))
    page.route("**/health/ready", lambda route: route.fulfill(**refusal))
    page.locator("#map canvas[role=application]").click(position={"x": 200, "y": 200})
    page.wait_for_selector("#away:visible")
    assert "not answering" in page.inner_text("#away")
    page.get_by_role("button", name="Zoom in").click()  # what needs no server goes on
    page.wait_for_function("() => location.search.includes('view=')")
    assert page.get_attribute(DIGIT, "data-latent") == before
    page.unroute("**/decode/**")
    page.unroute("**/health/ready")
    page.wait_for_selector("#away", state="hidden")
    page.wait_for_function(f"before => document.querySelector('{DIGIT}').dataset.latent !== before", arg=before)


def test_it_recovers_when_the_server_is_gone_and_comes_back(browser: Any) -> None:
    port = free_port()
    settings: dict[str, Any] = {"port": port, "models_dir": MODELS, "log_level": "warning"}
    page, process = patient(browser.new_page()), launch(**settings)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
            assert until(lambda: is_ready(process, client))
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector(READY)
        before = page.get_attribute(DIGIT, "data-latent")
        process.terminate()
        process.communicate(timeout=PATIENCE)
        page.locator("#map canvas[role=application]").click(position={"x": 200, "y": 200})
        page.wait_for_selector("#away:visible")
        process = launch(**settings)
        page.wait_for_selector("#away", state="hidden")
        page.wait_for_function(f"before => document.querySelector('{DIGIT}').dataset.latent !== before", arg=before)
    finally:
        page.close()
        process.terminate()
        process.communicate(timeout=PATIENCE)


def test_errors_are_told_in_words(visit: Visit) -> None:
    page = visit(allow="422")
    wrong = (
        '{"title": "Invalid input", "status": 422, "errors": [{"pointer": "/query/n", "detail": "1 to 2 are allowed"}]}'
    )
    page.route(
        "**/decode/image**",
        lambda route: route.fulfill(status=422, content_type="application/problem+json", body=wrong),
    )
    page.locator("#map canvas[role=application]").click(position={"x": 200, "y": 200})
    page.wait_for_function("() => document.querySelector('#messages').textContent")
    assert page.inner_text("#messages") == "Invalid input: 1 to 2 are allowed (/query/n)"


def test_the_code_behind_a_picture_makes_that_picture(visit: Visit, tmp_path: Any) -> None:
    page = visit(query={"z": "0.5,-1.25"}, permissions=["clipboard-read", "clipboard-write"])
    shown = canvas_pixels(page, DIGIT)
    page.locator("#map .pinned .code-button").click()
    curl, python = page.inner_text("[data-code=curl]"), page.inner_text("[data-code=python]")
    page.locator("[data-copy=curl]").click()
    page.wait_for_selector("text=Copied")
    assert page.evaluate("() => navigator.clipboard.readText()") == curl
    page.get_by_role("button", name="Close").click()
    assert not page.locator("dialog#code").is_visible()
    for command in (["bash", "-c", curl], [sys.executable, "-c", python]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert np.array_equal(grey((tmp_path / "image.png").read_bytes()), shown), shlex.join(command)
        (tmp_path / "image.png").unlink()


def test_another_model_is_chosen(visit: Visit) -> None:
    page = visit(query={"z": "0.5,-1.25", "view": "0,0,3"})
    card = page.locator("article", has_text="digits-ae")
    card.get_by_role("button", name="(digits-ae 1)").click()
    page.wait_for_function("() => location.search.includes('model=digits-ae')")
    page.wait_for_function(f"() => !['0.5,-1.25'].includes(document.querySelector('{DIGIT}').dataset.latent)")
    assert page.evaluate("() => new URLSearchParams(location.search).get('version')") == "1"
    assert "view" not in page.evaluate("() => location.search")
    assert page.locator("#model").input_value() == "digits-ae 1"
    assert card.get_by_role("button", name="(digits-ae 1)").is_disabled()
    page.locator("#model").select_option("mnist 2")
    page.wait_for_function("() => document.querySelectorAll('#map .slider').length === 8")


def test_cards_say_what_the_manifests_say(visit: Visit, address: str) -> None:
    page = visit()
    models = httpx2.get(f"{address}/models").json()["models"]
    assert page.locator("#models article").count() == len(models)
    for model in models:
        text = (
            page.locator(f"#models a[href='models/{model['name']}?version={model['version']}']")
            .locator("..")
            .locator("..")
            .inner_text()
        )
        metrics = model["manifest"]["metrics"]
        assert model["manifest"]["description"] in text
        for name in {"nll", "negative_elbo", "kl"} & metrics.keys():
            assert f"{metrics[name]:.2f}" in text
    assert httpx2.get(f"{address}/").json()["version"] == __version__


@pytest.mark.parametrize(
    "options",
    [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}],
    ids=["light", "dark", "phone"],
)
@pytest.mark.parametrize("model", ["mnist-2d", "mnist"])
def test_an_audit_finds_nothing_serious(visit: Visit, options: dict[str, Any], model: str) -> None:
    if not AXE.exists():
        missing = "install axe-core: npm ci --prefix tests/clients"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    page = visit(query={"model": model}, **options)
    page.wait_for_load_state("networkidle")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("async () => (await axe.run()).violations")
    serious = [
        (item["id"], item["help"], [node["html"][:200] for node in item["nodes"]])
        for item in found
        if item["impact"] in ("serious", "critical")
    ]
    assert not serious
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_nothing_shifts_while_it_loads(visit: Visit) -> None:
    observe = """
        window.shifts = 0;
        new PerformanceObserver(list => {
            for (const entry of list.getEntries()) if (!entry.hadRecentInput) shifts += entry.value;
        }).observe({ type: "layout-shift", buffered: true });
    """
    page = visit(prepare=lambda page: page.add_init_script(observe))
    page.wait_for_load_state("networkidle")
    assert page.evaluate("() => shifts") < 0.1
