"""Several processes' metrics as one, through the files that they share."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from prometheus_client.values import MultiProcessValue

from app.metrics.files import FIRST_BYTES, allocate

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_KINDS = 5
"""Files that a process has: of counters, of histograms, of gauges that are added up, and of others."""


def shared_folder() -> Path | None:
    """Where the processes of one server share what they count; None where there is one alone."""
    folder = os.environ.get(FOLDER)
    return None if folder is None else Path(folder)


def check_room(folder: Path, processes: int) -> None:
    """Raises OSError where the folder has no room for what so many processes share at first."""
    probe = folder / "probe"
    allocate(probe, processes * _KINDS * FIRST_BYTES)
    probe.unlink()


def all_processes(folder: Path) -> CollectorRegistry:
    """What all of them have put into the folder, and what the system knows of those that live."""
    _forget_the_dead(folder)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    registry.register(_Processes(_sharing(folder)))
    return registry


def shared_counter(name: str, text: str) -> Callable[[], None]:
    """What counts one more in a process that was started before there was a folder: the supervisor."""
    value = MultiProcessValue()("counter", name, f"{name}_total", (), (), text)  # type: ignore[no-untyped-call]
    return lambda: value.inc(1)


class _Processes(Collector):
    """CPU, memory and files of each process, told apart by its id."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = sorted(pids)

    def collect(self) -> Iterator[Metric]:
        """Each metric, with a sample of every process that still lives."""
        metrics: dict[str, Metric] = {}
        for pid in self._pids:
            for found in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                metric = metrics.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    metric.add_sample(sample.name, {"pid": str(pid)}, sample.value)
        yield from metrics.values()


def _sharing(folder: Path) -> set[int]:
    """The processes that have gauges there."""
    return {int(re.sub(r".*_(\d+)\.db", r"\1", path.name)) for path in folder.glob("gauge_live*.db")}


def _forget_the_dead(folder: Path) -> None:
    """Drop the gauges of processes that are no more; what they counted stays."""
    for pid in _sharing(folder):
        if not _is_alive(pid):
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
