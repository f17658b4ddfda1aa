"""Signals that stop the server, while it is used."""

import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from app.api.forms.images import EXAMPLE_IMAGE
from tests.conftest import MODELS, Start
from tests.faults.load import Load
from tests.processes import PATIENCE, children, sharing, until

GRACEFUL = (0, -signal.SIGTERM, 128 + signal.SIGTERM)
SLOW = {"slots": 1, "batch_rows": 1, "queue_rows": 100_000, "wait_seconds": 1000}
"""A server that runs one row at a time, and lets in whoever comes."""


def answering(start: Start, workers: int, **settings: object) -> tuple[subprocess.Popen[str], httpx2.Client]:
    """A server whose workers all answer, and a client of it."""
    process, client = start(models_dir=MODELS, workers=workers, log_level="warning", **settings)
    assert workers == 1 or until(lambda: len(sharing(children(process.pid))) == workers)
    return process, client


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow(reason="more of the same"))])
def test_sigterm_under_load_loses_no_request_that_was_let_in(start: Start, workers: int) -> None:
    process, client = answering(start, workers, shutdown_seconds=10 * PATIENCE)
    load = Load(client)
    with load.at_work():
        assert until(lambda: load.answered > 100)
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=PATIENCE)  # long before its time is up
        assert until(lambda: load.refused > 10)
    _, log = process.communicate()
    assert process.returncode in GRACEFUL
    assert load.lost == []
    assert set(load.statuses) == {200}
    assert load.sent == load.answered
    assert "Traceback" not in log


def test_sigint_does_as_sigterm_does(start: Start) -> None:
    process, client = answering(start, 1, **SLOW)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(score, client, 16)
        assert until(lambda: _is_asking(client))
        process.send_signal(signal.SIGINT)
        assert asked.result().status_code == 200
    process.wait(timeout=PATIENCE)
    _, log = process.communicate()
    assert process.returncode in (0, -signal.SIGINT, 128 + signal.SIGINT)
    assert "Traceback" not in log


def test_a_second_sigterm_is_no_reason_to_hurry(start: Start) -> None:
    process, client = answering(start, 1)
    load = Load(client)
    with load.at_work(2):
        assert until(lambda: load.answered > 20)
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        process.wait(timeout=PATIENCE)
    assert process.returncode in GRACEFUL
    assert load.lost == []
    assert "Traceback" not in process.communicate()[1]


def test_whose_time_is_up_is_told_that_the_server_stops(start: Start) -> None:
    process, client = answering(start, 1, shutdown_seconds=1, **SLOW)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(score, client, 256) for _ in range(4)]
        assert until(lambda: "vae_requests_in_progress 5.0" in client.get("/metrics").text)  # with this one
        process.send_signal(signal.SIGTERM)
        answers = [answer.result() for answer in asked]
    process.wait(timeout=PATIENCE)
    _, log = process.communicate()
    assert process.returncode in GRACEFUL
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["detail"] for answer in answers} == {"the server is stopping"}
    assert {answer.headers["retry-after"] for answer in answers} == {"1"}
    assert "timeout graceful shutdown exceeded" in log
    assert "Traceback" not in log


def score(client: httpx2.Client, count: int) -> httpx2.Response:
    """The scores of so many images, of which each takes 128 rows."""
    with httpx2.Client(base_url=client.base_url, timeout=PATIENCE) as another:
        return another.post("/score", params={"k": 128}, json={"images": [EXAMPLE_IMAGE] * count})


def _is_asking(client: httpx2.Client) -> bool:
    """Whether the server has rows to run."""
    with httpx2.Client(base_url=client.base_url, timeout=PATIENCE) as another:
        return bool(another.get("/models").json()["queued_rows"])
