"""Several processes behind one port: the same bytes, one sum of metrics, and a killed worker that nobody misses."""

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.conftest import MODELS, Start, free_port, launch
from tests.processes import PATIENCE, children, fresh, sharing, until


def scraped(client: httpx2.Client, name: str) -> float:
    with fresh(client) as another:
        text = another.get("/metrics").text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def tells(client: httpx2.Client, name: str, value: float) -> bool:
    """Whether the metric is this, whichever worker one asks."""
    return {scraped(client, name) for _ in range(8)} == {value}


@pytest.fixture
def workers(start: Start) -> tuple[int, httpx2.Client]:
    """The supervisor's pid, and a client of its two workers."""
    process, client = start(workers=2, models_dir=MODELS, cache_bytes=0, log_level="warning")
    assert until(lambda: len(sharing(children(process.pid))) == 2)
    return process.pid, client


def test_several_workers_answer_the_same_bytes_and_add_up_their_metrics(workers: tuple[int, httpx2.Client]) -> None:
    _, client = workers
    answers = set()
    for _ in range(30):
        with fresh(client) as another:
            answers.add(another.get("/sample/image", params={"seed": 1, "n": 9}).content)
    assert len(answers) == 1
    assert until(lambda: tells(client, 'vae_requests_total{operation="sample_image",status="200"}', 30))
    assert until(lambda: tells(client, 'vae_request_seconds_count{operation="sample_image"}', 30))
    assert until(lambda: tells(client, "vae_batch_rows_total", 270))
    assert until(lambda: tells(client, "vae_queue_rows", 0))


def test_a_killed_worker_is_replaced_and_its_neighbour_notices_nothing(workers: tuple[int, httpx2.Client]) -> None:
    supervisor, client = workers
    before = children(supervisor)
    victim, survivor = sorted(before)
    lost, answered, stopping = 0, 0, False

    def use() -> None:
        nonlocal lost, answered
        while not stopping:
            try:
                with fresh(client) as another:
                    assert another.get("/sample/image", params={"n": 2}).status_code == 200
                answered += 1
            except httpx2.TransportError:  # it was in the victim's hands
                lost += 1

    with ThreadPoolExecutor(4) as pool:
        users = [pool.submit(use) for _ in range(4)]
        try:
            assert until(lambda: answered > 50)
            os.kill(victim, signal.SIGKILL)
            so_far = answered
            assert until(lambda: answered > so_far + 50)  # while the victim is missing
            assert until(lambda: len(sharing(children(supervisor) - {victim})) == 2)
            so_far = answered
            assert until(lambda: answered > so_far + 50)
        finally:
            stopping = True
        for user in users:
            user.result()
    assert survivor in children(supervisor)
    assert victim not in children(supervisor)
    assert lost <= 4  # what the victim held: one request of each user at most
    counted = scraped(client, 'vae_requests_total{operation="sample_image",status="200"}')
    # What the victim counted is not forgotten; one that it had answered it may not have counted yet.
    assert answered - 1 <= counted <= answered + lost
    assert until(lambda: tells(client, "vae_queue_rows", 0))


def test_several_workers_count_a_callers_requests_together(start: Start) -> None:
    process, client = start(workers=2, models_dir=MODELS, rate_limit="20/hour", log_level="warning")
    assert until(lambda: len(sharing(children(process.pid))) == 2)
    statuses = []
    for _ in range(60):
        with fresh(client) as another:
            statuses.append(another.get("/models").status_code)
    assert statuses == [200] * 20 + [429] * 40


def test_keys_that_no_worker_could_read_stop_the_start(tmp_path: Path) -> None:
    process = launch(port=free_port(), workers=2, models_dir=MODELS, keys_file=tmp_path / "none")
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert log == f"error: VAE_KEYS_FILE {tmp_path / 'none'} cannot be read: No such file or directory\n"


def test_nor_does_a_hangup_replace_workers_that_can_read_them(start: Start, tmp_path: Path) -> None:
    keys, log = tmp_path / "keys", tmp_path / "log"
    keys.write_text("web:a-key-of-16-chars\n")
    process, client = start(workers=2, models_dir=MODELS / "mnist-2d/2", keys_file=keys, log=log)
    assert until(lambda: len(sharing(children(process.pid))) == 2)
    before = children(process.pid)
    keys.unlink()
    process.send_signal(signal.SIGHUP)
    refusal = f"SIGHUP: the workers stay as they are: VAE_KEYS_FILE {keys} cannot be read"
    assert until(lambda: refusal in log.read_text())
    assert client.get("/models", headers={"Authorization": "Bearer a-key-of-16-chars"}).status_code == 200
    assert children(process.pid) == before
    process.terminate()
    process.wait(timeout=PATIENCE)
    assert "a new worker did not start" not in log.read_text()
