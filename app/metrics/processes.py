"""The metrics of several processes as one, through the files that the processes share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from prometheus_client.values import MultiProcessValue

from app.metrics.files import FIRST_BYTES, allocate

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_KINDS = 5
"""Maximum files per process: one per type of metric and mode of gauge."""


def shared_folder() -> Path | None:
    """The folder through which the processes of one server share their metrics; None if there is only one process."""
    folder = os.environ.get(FOLDER)
    return None if folder is None else Path(folder)


def check_room(folder: Path, processes: int) -> None:
    """Raise OSError if the folder has no room for the first files of `processes` processes."""
    probe = folder / "probe"
    allocate(probe, processes * _KINDS * FIRST_BYTES)
    probe.unlink()


def all_processes(folder: Path) -> CollectorRegistry:
    """The metrics of all processes in the folder, with the CPU, memory and files of the running ones."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    registry.register(_Processes(folder))
    return registry


def drop_gauges(pid: int | None) -> None:
    """Drop the gauges of a process that has ended; its counters stay."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]


def shared_counter(name: str, text: str) -> Callable[[], None]:
    """A function that adds 1 to a shared counter, for the supervisor, which starts before the folder exists."""
    value = MultiProcessValue()("counter", name, f"{name}_total", (), (), text)  # type: ignore[no-untyped-call]
    return lambda: value.inc(1)


class _Processes(Collector):
    """CPU, memory and open files of each process that has gauges in the folder, with the label `pid`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Each metric, with a sample of every process that is alive."""
        metrics: dict[str, Metric] = {}
        for pid in sorted({int(path.stem.rpartition("_")[2]) for path in self._folder.glob("gauge_live*.db")}):
            for found in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                metric = metrics.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    metric.add_sample(sample.name, {"pid": str(pid)}, sample.value)
        yield from metrics.values()
