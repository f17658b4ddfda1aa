"""The metrics of processes that share a folder, of which some have ended."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.metrics.files import SharedValues
from app.metrics.processes import all_processes
from tests.processes import until


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process


def write(folder: Path, pid: int) -> None:
    """Write what a process shares: a counter and two gauges."""
    for kind, name in (("counter", "asked_total"), ("gauge_livesum", "busy"), ("gauge_livemax", "info")):
        values = SharedValues(str(folder / f"{kind}_{pid}.db"))
        values.write_value(json.dumps([name.removesuffix("_total"), name, {}, "text"]), 1.0, 0.0)
        values.close()


def test_a_crashed_process_leaves_counters_and_no_gauges(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    registry = all_processes(tmp_path)

    def read() -> list[float | None]:
        return [registry.get_sample_value(name) for name in ("asked_total", "busy", "info")]

    def has_process() -> bool:
        return registry.get_sample_value("process_open_fds", {"pid": str(process.pid)}) is not None

    write(tmp_path, process.pid)
    assert read() == [1, 1, 1]
    write(tmp_path, os.getpid())
    assert read() == [2, 2, 1]
    assert has_process()
    process.kill()  # and nobody waits for it, as while the supervisor waits for another
    assert until(lambda: read() == [2, 1, 1])
    assert not has_process()
    process.wait()
    assert read() == [2, 1, 1]
    assert not has_process()
