"""Servers as processes: their workers, memory and logs, and waiting for what they are to do."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from app.metrics.processes import FOLDER

PATIENCE = 300.0
"""Seconds that a test waits for what must happen, however busy the machine is: only a failure takes so long."""
PATIENT: dict[str, Any] = dict.fromkeys(("wait_seconds", "queue_seconds", "request_seconds"), PATIENCE)
"""Settings of a server that refuses no request, and gives none up, because the machine is busy."""


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def children(pid: int) -> set[int]:
    """The worker processes of a supervisor."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields, command = path.read_text().rpartition(")")[2].split(), (path.parent / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[1]) == pid and b"spawn_main" in command:
            found.add(int(path.parent.name))
    return found


def sharing(pids: set[int]) -> set[int]:
    """The workers that share their metrics: they have loaded their models by then."""
    found = set()
    for pid in pids:
        variables = dict(item.partition("=")[::2] for item in Path(f"/proc/{pid}/environ").read_text().split("\0"))
        found |= {pid} if list(Path(variables[FOLDER]).glob(f"gauge_livesum_{pid}.db")) else set()
    return found


def fresh(client: httpx2.Client) -> httpx2.Client:
    """A client with a connection of its own, which any of the workers may accept."""
    return httpx2.Client(base_url=client.base_url, timeout=PATIENCE)


def resident(pid: int) -> float:
    """MB of memory that a process has."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
