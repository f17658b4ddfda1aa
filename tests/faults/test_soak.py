"""Everything at once, for a while: `bench/soak.py`, for some seconds."""

from pathlib import Path

import pytest

from bench.soak import KEY, Server, prepare, soak
from tests.conftest import Start
from tests.processes import PATIENCE

pytestmark = pytest.mark.slow(reason="sends mixed traffic, for a while")

SECONDS = 15


def test_mixed_traffic_leaves_no_error_and_nothing_else_behind(start: Start, tmp_path: Path) -> None:
    models = tmp_path / "models"
    prepare(models)
    process, client = start(models_dir=models, admin_key=KEY, log_level="critical")
    assert client.base_url.port is not None
    server = Server(client.base_url.port, process.pid, models)
    seen = soak(server, SECONDS)
    assert not seen.unexpected
    assert {status for status in seen.statuses() if status >= 500} <= {503}
    assert len({name for name, status in seen.answers if status == 200}) > 15
    assert min(seen.requests, 10 * seen.left, 50 * seen.reloads) > 100
    # What it takes to know every model and to answer at once it has after a third of the time.
    early, late = seen.held[len(seen.held) // 3], seen.held[-1]
    assert late.memory < early.memory + 80
    assert late.descriptors <= seen.held[0].descriptors + 2
    assert late.threads <= early.threads + 4
    assert client.get("/models").json()["queued_rows"] == 0
    process.terminate()
    assert process.communicate(timeout=PATIENCE)[1] == ""
