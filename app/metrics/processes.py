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
    registry.register(_Values(folder))
    registry.register(_Processes(folder))
    return registry


def drop_gauges(pid: int | None) -> None:
    """Drop the gauges of a process that has ended; its counters stay."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]


def shared_counter(name: str, text: str) -> Callable[[], None]:
    """A function that adds 1 to a shared counter, for the supervisor, which starts before the folder exists."""
    value = MultiProcessValue()("counter", name, f"{name}_total", (), (), text)  # type: ignore[no-untyped-call]
    return lambda: value.inc(1)


def _is_running(pid: int) -> bool:
    """Whether a process runs; where there is no /proc, every process counts as running.

    One that has crashed is a zombie until the supervisor, which may wait for another worker, hears of it.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return not Path("/proc/self").exists()


def _gauges(folder: Path) -> dict[Path, int]:
    """The files with gauges, and the process of each."""
    return {path: int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*.db")}


class _Values(Collector):
    """The values in the files of a folder: gauges of running processes, and everything else of all processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """The metrics of the library, without the gauges of processes that have crashed."""
        gone = {path for path, pid in _gauges(self._folder).items() if not _is_running(pid)}
        files = [str(path) for path in self._folder.glob("*.db") if path not in gone]
        yield from MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]


class _Processes(Collector):
    """CPU, memory and open files of each process that has gauges in the folder, with the label `pid`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Each metric, with a sample of every process that is alive."""
        metrics: dict[str, Metric] = {}
        for pid in sorted({pid for pid in _gauges(self._folder).values() if _is_running(pid)}):
            for found in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                metric = metrics.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    metric.add_sample(sample.name, {"pid": str(pid)}, sample.value)
        yield from metrics.values()
