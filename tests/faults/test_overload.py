"""Many times the load that the server can sustain: `bench/overload.py`, for some seconds."""

import math

import pytest

from bench.overload import overload
from tests.conftest import MODELS, Start
from tests.processes import PATIENCE

pytestmark = pytest.mark.slow(reason="sends more than the server can do, for half a minute")

TIMES, SECONDS = 50, 8


def test_overload_bounds_who_is_answered_refuses_the_others_and_passes_without_a_trace(start: Start) -> None:
    process, client = start(models_dir=MODELS, log_level="error")
    port = client.base_url.port
    assert port is not None
    report = overload(port, process.pid, times=TIMES, seconds=SECONDS, sustain=2)
    assert report.offered > 0.9 * TIMES * report.rate * SECONDS
    assert report.lost == 0
    assert report.unexpected == []  # neither answered nor refused
    assert report.accepted.count + report.refused.count == report.offered
    # Bounds for a machine that others use, too; bench/overload.py has figures.
    assert report.goodput > 0.1
    assert report.accepted.median < 30
    assert report.refused.median < 5
    assert report.health.p99 < 30
    assert report.recovery < 40
    before, most, after = report.memory
    assert most < before + 400
    assert after < before + 400
    assert not math.isnan(report.before.median)
    assert client.get("/models").json()["queued_rows"] == 0
    process.terminate()
    assert process.communicate(timeout=PATIENCE)[1] == ""
