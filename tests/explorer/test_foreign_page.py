"""A page of another origin, in a real browser, against a server on loopback without keys."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx2
import pytest

from tests.conftest import MODELS, servers
from tests.explorer.conftest import ARGUMENTS, CHROMIUM, patient

ATTACK = """async address => {
    const form = new FormData();
    form.append("images", new Blob(["x"]), "x.png");
    const simple = { method: "POST", mode: "no-cors" };
    for (const [path, options] of [
        ["/encode/files", { ...simple, body: form }],
        ["/v2/models/mnist-2d/infer", { ...simple, body: "{}" }],
        ["/decode", { ...simple, body: JSON.stringify({ latents: [[0, 0]] }) }],
        ["/sample?n=1", { mode: "no-cors" }],
        ["/sample?n=1", {}],
    ]) await fetch(address + path, options).catch(() => null);  // it may read nothing, not even that it was refused
    for (const tag of ["img", "script", "iframe"]) {
        const element = document.createElement(tag);
        const done = new Promise(resolve => { element.onload = element.onerror = resolve; });
        element.src = `${address}/sample/image?n=1`;
        document.body.append(element);
        await done;
    }
    document.body.insertAdjacentHTML("beforeend", `<form action="${address}/encode/files" method="post"
        enctype="multipart/form-data" target="frame"><input name="images"></form><iframe name="frame"></iframe>`);
    const frame = document.querySelector("[name=frame]");
    const done = new Promise(resolve => { frame.onload = frame.onerror = resolve; });
    document.querySelector("form").submit();
    await done;
}"""


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>another site</title><body>")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def foreign() -> Iterator[int]:
    """The port of another site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def own() -> Iterator[httpx2.Client]:
    """A server without keys that nobody else asks."""
    with servers() as start:
        yield start(models_dir=MODELS, models="mnist-2d", default_model="mnist-2d", log_level="warning")[1]


def counted(client: httpx2.Client, metric: str) -> set[str]:
    """The lines of a metric with their labels and values, but for what a request of `/metrics` counts itself."""
    lines = client.get("/metrics").text.splitlines()
    return {line.removeprefix(metric) for line in lines if line.startswith(metric) and '"other"' not in line}


@pytest.mark.parametrize("site", ["localhost", "127.0.0.1"])
def test_a_foreign_page_makes_the_server_do_nothing(browser: Any, foreign: int, own: httpx2.Client, site: str) -> None:
    """`localhost` is another site than 127.0.0.1; another port of the same host is the same site, another origin."""
    rows, requests = (counted(own, metric) for metric in ("vae_model_rows_total", "vae_requests_total"))
    context = browser.new_context()
    page = patient(context.new_page())
    page.goto(f"http://{site}:{foreign}/")
    page.evaluate(ATTACK, str(own.base_url).rstrip("/"))
    context.close()
    assert counted(own, "vae_requests_total") - requests == {
        '{operation="encode_files",status="403"} 2.0',  # by fetch, and by a form in a frame
        '{operation="v2_model_infer",status="403"} 1.0',
        '{operation="decode",status="403"} 1.0',
        '{operation="sample",status="403"} 2.0',
        '{operation="sample_image",status="403"} 3.0',
    }
    assert counted(own, "vae_model_rows_total") == rows


def test_a_name_that_is_bound_to_loopback_reads_nothing(browser: Any, own: httpx2.Client) -> None:
    """DNS rebinding: the browser takes the server for the site of the name, so that its pages may read the answers."""
    rules = "--host-resolver-rules=MAP attacker.example 127.0.0.1"
    rebound = browser.browser_type.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, rules])
    page = patient(rebound.new_page())
    address = f"http://attacker.example:{own.base_url.port}"
    assert page.goto(f"{address}/").ok  # the explorer, which holds nothing
    statuses = page.evaluate(
        "async paths => Promise.all(paths.map(async path => (await fetch(path)).status))",
        ["/models", "/sample?n=1", "/posteriors", "/metrics"],
    )
    rebound.close()
    assert statuses == [403] * 4
