"""A server that has more to do than it can still says that it lives, and that it takes work."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import numpy as np

from tests.app.metrics.test_metrics import scrape
from tests.conftest import MODELS, Start, npy
from tests.live.test_workers import fresh, until

IMAGES = npy(np.zeros((64, 28, 28), np.uint8))
HEADERS = {"Content-Type": "application/x-npy"}


@contextmanager
def overloaded(client: httpx2.Client) -> Iterator[list[int]]:
    """While it lasts, more `/score` is asked than there is room for; the statuses of its answers."""
    done, statuses = threading.Event(), list[int]()

    def ask() -> None:
        with fresh(client) as another:
            another.timeout = 120
            while not done.is_set():
                answer = another.post("/score/npy?k=128&binarize=threshold", content=IMAGES, headers=HEADERS)
                statuses.append(answer.status_code)
                if answer.status_code == 503:
                    time.sleep(0.02)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_every_slot_and_the_queue_are_full(start: Start) -> None:
    _, client = start(models_dir=MODELS, slots=1, queue_rows=2048, log_level="error")
    client.timeout = 60
    with overloaded(client) as statuses:
        assert until(lambda: 503 in statuses, 60)
        was_full = 0
        for _ in range(20):
            for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"):
                began = time.monotonic()
                assert client.get(path).status_code == 200
                assert time.monotonic() - began < 10  # a batch takes a hundredth of a second, the queue many seconds
            samples = scrape(client)
            was_full += samples["vae_busy_slots"] == 1 and samples["vae_queue_rows"] > 1024
        assert was_full > 5
    assert set(statuses) <= {200, 503}
    assert 200 in statuses
    assert until(lambda: scrape(client)["vae_queue_rows"] == 0)
    assert scrape(client)['vae_rejections_total{reason="overloaded"}'] == statuses.count(503)
