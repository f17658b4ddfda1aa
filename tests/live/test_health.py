"""A server that has more to do than it can still says that it lives, and that it takes work."""

import json
from contextlib import ExitStack
from pathlib import Path

from tests.app.metrics.test_metrics import scrape
from tests.conftest import Start, base64_png
from tests.faults.bundles import image, put_faulty_bundle
from tests.live.test_protocol import connect, get
from tests.processes import PATIENCE, until

QUEUE_ROWS, ROUNDS = 8, 20
SETTINGS = {"slots": 1, "threads": 1, "queue_rows": QUEUE_ROWS, "shutdown_seconds": 1, "log_level": "error"}
NO_DEADLINE = dict.fromkeys(("queue_seconds", "request_seconds", "wait_seconds"), 10 * PATIENCE)


def test_every_slot_and_the_queue_are_full(start: Start, tmp_path: Path) -> None:
    """By a graph that runs for minutes, and a request that waits for it: both stay so while they are looked at."""
    put_faulty_bundle(tmp_path, "takes long")
    _, client = start(models_dir=tmp_path, **SETTINGS, **NO_DEADLINE)

    def images(first: int, count: int = 1) -> bytes:
        return json.dumps({"images": [base64_png(image(first))] * count}).encode()

    with ExitStack() as leaving:

        def ask(body: bytes) -> None:
            """Send a request, and wait for no answer."""
            headers = ("Content-Type: application/json", f"Content-Length: {len(body)}")
            connection = leaving.enter_context(connect(client))
            connection.sendall(get("/encode", *headers, method="POST") + body)

        ask(images(255))
        assert until(lambda: scrape(client)["vae_busy_slots"] == 1)
        ask(images(0, QUEUE_ROWS))
        assert until(lambda: scrape(client)["vae_queue_rows"] == QUEUE_ROWS)
        for _ in range(ROUNDS):
            for path in ("/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"):
                assert client.get(path).status_code == 200
            refused = client.post("/encode", content=images(0), headers={"Content-Type": "application/json"})
            assert refused.status_code == 503
            samples = scrape(client)
            assert (samples["vae_busy_slots"], samples["vae_queue_rows"]) == (1, QUEUE_ROWS)
    assert until(lambda: scrape(client)["vae_queue_rows"] == 0)  # the clients are gone
    assert scrape(client)['vae_rejections_total{reason="overloaded"}'] == ROUNDS
