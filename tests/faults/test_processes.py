"""Processes that are killed, or cannot start. (A worker that is killed under load: `tests/live/test_workers.py`.)"""

import os
import re
import signal
import time
from pathlib import Path

import httpx2
import pytest

from tests.conftest import MODELS, Start, damage, put_bundle
from tests.live.test_workers import children, fresh, sharing, until


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_workers_of_a_supervisor_that_is_killed_stop(start: Start) -> None:
    process, client = start(workers=2, models_dir=MODELS, log_level="warning", shutdown_seconds=5)
    assert until(lambda: len(sharing(children(process.pid))) == 2, 60)
    workers = children(process.pid)
    process.kill()
    process.wait()
    assert until(lambda: not any(map(is_alive, workers)), 30)
    with pytest.raises(httpx2.ConnectError):
        client.get("/health/live")
    assert process.communicate()[1].count("the supervisor is gone") == 2


def test_a_worker_that_cannot_start_is_tried_less_and_less_often_until_it_can(start: Start, models_copy: Path) -> None:
    process, client = start(workers=2, models_dir=models_copy, log_level="warning")
    assert until(lambda: len(sharing(children(process.pid))) == 2, 60)
    victim, survivor = sorted(children(process.pid))
    damage(put_bundle(models_copy, 2))
    os.kill(victim, signal.SIGKILL)
    ended = time.monotonic() + 6
    while time.monotonic() < ended:
        with fresh(client) as another:
            assert another.get("/sample?n=1").status_code == 200
        time.sleep(0.05)
    put_bundle(models_copy, 2)
    assert until(lambda: len(sharing(children(process.pid))) == 2, 90)
    assert survivor in children(process.pid)
    process.terminate()
    _, log = process.communicate(timeout=40)
    pauses = [int(pause) for pause in re.findall(r"died with status .* the next starts in (\d+) s", log)]
    assert 2 <= len(pauses) <= 5
    assert pauses[1:] == [2 * pause for pause in pauses[:-1]]
    assert log.count("decoder.onnx does not have the sha256 that manifest.json says") == len(pauses) - 1
    assert "Traceback" not in log
