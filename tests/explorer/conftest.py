"""The explorer in a real browser: Debian's chromium, driven by Playwright."""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
import numpy as np
import pytest
from PIL import Image

from tests.conftest import Pixels
from tests.processes import PATIENCE, until

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READY = "#map .pinned canvas[data-latent]"
"""There once the map has its dots, and the pinned latent its picture."""


@pytest.fixture(scope="module")  # not longer: while it lives, asyncio.run() fails in this process
def browser() -> Iterator[Any]:
    """Chromium without a window; without one these tests are skipped, but not in CI."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None  # type: ignore[assignment]
    if sync_playwright is None or not (CHROMIUM.exists() or shutil.which("chromium")):
        missing = "install chromium (apt-get install chromium) and Playwright (scripts/test does)"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    with sync_playwright() as playwright:
        path = CHROMIUM if CHROMIUM.exists() else shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(live: httpx2.Client) -> str:
    """Where a server of the shipped models answers."""
    return str(live.base_url).rstrip("/")


def patient(page: Any) -> Any:
    """The page, which waits as long as a test does."""
    page.set_default_timeout(1000 * PATIENCE)
    return page


def rest(page: Any, milliseconds: int) -> None:
    """Let the page's timers of up to so many milliseconds go off, and what they bring be drawn.

    The page itself waits: its timers go off in order, however busy the machine is.
    """
    page.evaluate(
        """milliseconds => new Promise(done => setTimeout(
            () => requestAnimationFrame(() => requestAnimationFrame(done)), milliseconds))""",
        milliseconds,
    )


def comes(page: Any, condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true, while the page goes on."""

    def holds() -> bool:
        rest(page, 20)
        return condition()

    return until(holds)


Visit = Callable[..., Any]


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    """Opens the page, with a query of one's own, and waits for the map.

    At the end no page may have logged an error, or asked anything of another origin; what a test allows by `allow` is
    part of an error's text.
    """
    contexts, wrong, allowed = [], [], list[str]()

    def open_page(allow: str = "", ready: str = READY, prepare: Any = None, **options: Any) -> Any:
        query = options.pop("query", {})
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}} | options)
        contexts.append(context)
        allowed.extend([allow] if allow else [])
        page = patient(context.new_page())
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: wrong.extend(_elsewhere(request.url, address)))
        if prepare is not None:
            prepare(page)
        page.goto(f"{address}/?{urlencode(query)}")
        if ready:
            page.wait_for_selector(ready)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not [text for text in wrong if not any(part in text for part in allowed)]


def _elsewhere(url: str, address: str) -> list[str]:
    return [] if url.startswith((f"{address}/", f"blob:{address}/", "data:")) else [f"another origin: {url}"]


def canvas_pixels(page: Any, selector: str) -> Pixels:
    """The grey values of a canvas, uint8 `[H, W]`."""
    width, height, values = page.eval_on_selector(
        selector,
        """canvas => {
            const { width, height } = canvas;
            return [width, height, [...canvas.getContext("2d").getImageData(0, 0, width, height).data]];
        }""",
    )
    return np.array(values, np.uint8).reshape(height, width, 4)[..., 0]


def grey(content: bytes) -> Pixels:
    """The grey values of a picture, uint8 `[H, W]`."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))
