"""Requests that are given up: at their deadline, or because their client went away; what is left of them is nothing."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator

import httpx2
import numpy as np
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from app.api.routing.disconnect import DisconnectWatcher
from app.errors import DeadlineExceeded
from app.main import create_app
from app.settings import Settings
from tests.conftest import MODELS, Pixels, base64_png, npy
from tests.connections import Served, answers, get, served, until
from tests.processes import PATIENCE

NPY = {"Content-Type": "application/x-npy"}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    """A server of one slot and little patience."""
    app = create_app(Settings(models_dir=MODELS, slots=1, request_seconds=1, cache_bytes=0))
    with served(app) as server:
        yield server


@pytest.fixture
def client(server: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=PATIENCE) as client:
        yield client


def test_a_request_past_its_deadline_is_answered_and_its_rows_are_dropped(
    client: httpx2.Client, digits: Pixels
) -> None:
    answer = client.post("/score/npy?k=128&model=mnist", content=npy(digits[:256]), headers=NPY)
    assert answer.status_code == 504
    assert answer.json()["type"] == "urn:vaeserve:problem:deadline-exceeded"
    assert answer.json()["detail"] == "the response took too long"
    assert until(lambda: client.get("/models").json()["queued_rows"] == 0)
    assert client.post("/encode", json={"images": [base64_png(digits[0])]}).status_code == 200


def test_those_that_wait_behind_it_are_answered(server: Served, client: httpx2.Client, digits: Pixels) -> None:
    body = npy(digits[:256])
    head = get("/score/npy?k=128", "Content-Type: application/x-npy", f"Content-Length: {len(body)}", method="POST")
    with server.connect() as connection:
        connection.sendall(head + body + get("/sample?seed=1&model=mnist-2d", "Connection: close"))
        assert [answer.status for answer in answers(connection)] == [504, 200]
    assert until(lambda: server.tasks == 0)


def test_pictures_of_clients_that_went_away_leave_no_threads_behind(server: Served, client: httpx2.Client) -> None:
    large = json.dumps({"images": [base64_png(np.zeros((4000, 4000), np.uint8))]}).encode()
    head = get("/encode", "Content-Type: application/json", f"Content-Length: {len(large)}", method="POST")
    offload, others = threads("offload"), threads("AnyIO")  # of other applications, too
    for _ in range(12):
        with server.connect() as connection:
            connection.sendall(head + large)
            time.sleep(0.12)  # they are looked after from 0.1 s on
    assert until(lambda: server.tasks == 0)
    assert until(lambda: threads("offload") <= offload + 1)
    assert until(lambda: threads("AnyIO") <= others)
    answer = client.post("/encode?model=mnist-2d", json={"images": [base64_png(np.zeros((30, 30), np.uint8))]})
    assert answer.status_code == 200


def threads(name: str) -> int:
    """How many there are whose name begins like this."""
    return sum(thread.name.startswith(name) for thread in threading.enumerate())


async def never() -> None:
    await asyncio.Event().wait()


async def gone() -> dict[str, str]:
    return {"type": "http.disconnect"}


async def broken() -> dict[str, str]:
    raise HTTPException(413)


async def there() -> dict[str, str]:
    await asyncio.Event().wait()
    return {"type": "http.disconnect"}


def test_who_ends_a_request_is_told_apart() -> None:
    async def run() -> None:
        watcher = DisconnectWatcher(seconds=0.1)
        with pytest.raises(DeadlineExceeded):
            await watcher.watch(never(), there)
        with pytest.raises(ClientDisconnect):
            await watcher.watch(never(), gone)
        with pytest.raises(HTTPException):
            await watcher.watch(never(), broken)
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()
        outer = asyncio.create_task(watcher.watch(never(), there))
        await asyncio.sleep(0.01)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert await watcher.watch(asyncio.sleep(0, "quick"), gone) == "quick"
        await asyncio.sleep(0.3)
        assert asyncio.all_tasks() == {task}

    asyncio.run(run())


def test_an_answer_in_time_is_left_alone() -> None:
    async def run() -> None:
        watcher = DisconnectWatcher(seconds=30)
        answers = [watcher.watch(asyncio.sleep(0.01 * n, n), there) for n in range(40)]
        assert await asyncio.gather(*map(asyncio.create_task, answers)) == list(range(40))
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())
