"""Processes that are killed, or cannot start. (A worker that is killed under load: `tests/live/test_workers.py`.)"""

import os
import re
import signal
from pathlib import Path

import httpx2
import pytest

from tests.conftest import MODELS, Start, damage, put_bundle, repair
from tests.processes import PATIENCE, children, fresh, sharing, until


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_workers_of_a_supervisor_that_is_killed_stop(start: Start) -> None:
    process, client = start(workers=2, models_dir=MODELS, log_level="warning", shutdown_seconds=5)
    assert until(lambda: len(sharing(children(process.pid))) == 2)
    workers = children(process.pid)
    process.kill()
    process.wait()
    assert until(lambda: not any(map(is_alive, workers)))
    with pytest.raises(httpx2.ConnectError):
        client.get("/health/live")
    assert process.communicate()[1].count("the supervisor is gone") == 2


SHORT_LIFE, LONGEST_PAUSE = 30, 30
"""Seconds, as docs/resilience.md says: who lives that long is replaced at once, and nobody waits longer than that."""
DEATH = re.compile(r"died with status .* after (\d+) s; the next starts in (\d+) s")


@pytest.mark.slow(reason="waits between the tries")
def test_a_worker_that_cannot_start_is_tried_less_and_less_often_until_it_can(
    start: Start, models_copy: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process, client = start(workers=2, models_dir=models_copy, log_level="warning", log=log)
    assert until(lambda: len(sharing(children(process.pid))) == 2)
    victim, survivor = sorted(children(process.pid))
    directory = put_bundle(models_copy, 2)
    damage(directory)
    os.kill(victim, signal.SIGKILL)

    def died_three_times() -> bool:
        with fresh(client) as another:
            assert another.get("/sample?n=1").status_code == 200
        return len(DEATH.findall(log.read_text())) >= 3

    assert until(died_three_times)
    repair(directory)
    assert until(lambda: len(sharing(children(process.pid))) == 2)
    assert survivor in children(process.pid)
    process.terminate()
    process.wait(timeout=PATIENCE)
    deaths = [(int(age), int(pause)) for age, pause in DEATH.findall(log.read_text())]
    expected = 0
    for age, pause in deaths:  # on a very busy machine even a worker that cannot start may live that long
        expected = 0 if age >= SHORT_LIFE else min(max(1, 2 * expected), LONGEST_PAUSE)
        assert pause == expected
    assert log.read_text().count("decoder.onnx does not have the sha256 that manifest.json says") == len(deaths) - 1
    assert "Traceback" not in log.read_text()
