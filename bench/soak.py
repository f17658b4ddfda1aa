"""Soak test: minutes of mixed traffic that show leaks and errors which would appear after hours.

    .venv/bin/python -m bench.soak --help

Starts the server on two models. Clients send requests of all kinds, some of them invalid, while others disconnect
before the response and models are added and removed. Prints unexpected responses, the resources of the process over
time, and latencies.
"""

import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import httpx2
import numpy as np
import typer
from rich import print as show
from rich.table import Table

from bench.serving import ROOT, resident, started
from bench.traffic import MODELS, disconnect, random_request

PORT = 18091
KEY = "a-key-of-the-soak"
NEWEST = 9
"""The version that is added and removed."""


@dataclass(frozen=True)
class Resources:
    """Resources of the server's process, `seconds` after the start."""

    seconds: float
    memory: float
    """Resident memory in MB."""
    descriptors: int
    threads: int


@dataclass
class Soak:
    """Measurements of a soak test."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Responses by operation and status."""
    unexpected: Counter[str] = field(default_factory=Counter)
    """Responses with a status that the request should not get, and requests without a response."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Latencies in seconds by operation, without refusals."""
    left: int = 0
    """Clients that disconnected early."""
    reloads: int = 0
    """Reloads of the models directory."""
    held: list[Resources] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """Number of responses."""
        return sum(self.answers.values())

    def statuses(self) -> Counter[int]:
        """Responses by status."""
        total = Counter[int]()
        for (_, status), count in self.answers.items():
            total[status] += count
        return total


@dataclass
class Server:
    """A running server: its port, process id and models directory."""

    port: int
    pid: int
    models: Path

    def client(self) -> httpx2.Client:
        """An HTTP client of the server."""
        return httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def held(self, began: float) -> Resources:
        """Resources of the process now; `began` is the start on the monotonic clock, in seconds."""
        folder = Path(f"/proc/{self.pid}")
        counts = (len(os.listdir(folder / name)) for name in ("fd", "task"))
        return Resources(time.monotonic() - began, resident(self.pid), *counts)


def prepare(models: Path) -> None:
    """Copy the newest version of each model into a directory."""
    for name in MODELS:
        newest = max((ROOT / "models" / name).iterdir(), key=lambda path: int(path.name))
        shutil.copytree(newest, models / name / newest.name)


def soak(server: Server, seconds: float, *, clients: int = 6, interval: float = 1.0) -> Soak:
    """Send mixed traffic for `seconds` and record the resources every `interval` seconds; the admin key must be KEY."""
    seen, done, began = Soak(), threading.Event(), time.monotonic()
    jobs: list[Callable[[Server, Soak], None]] = [*[_asks] * clients, _leaves, _changes]
    threads = [threading.Thread(target=_again, args=[job, server, seen, done]) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        while time.monotonic() - began < seconds:
            seen.held.append(server.held(began))
            time.sleep(interval)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    time.sleep(6)  # until the server has closed idle connections
    seen.held.append(server.held(began))
    return seen


def _again(job: Callable[[Server, Soak], None], server: Server, seen: Soak, done: threading.Event) -> None:
    while not done.is_set():
        job(server, seen)


_lock = threading.Lock()


def _asks(server: Server, seen: Soak) -> None:
    """Send some requests over one connection."""
    with server.client() as client:
        for _ in range(random.choice((1, 10, 50))):
            _ask(client, seen)


def _ask(client: httpx2.Client, seen: Soak) -> None:
    request, began = random_request(), time.perf_counter()
    try:
        status = request.send(client)
    except httpx2.TransportError as error:
        with _lock:
            seen.unexpected[f"{request.name}: {type(error).__name__}"] += 1
        return
    with _lock:
        seen.answers[request.name, status] += 1
        if status != 503:
            seen.seconds[request.name].append(time.perf_counter() - began)
        if status not in (*request.statuses, 503):
            seen.unexpected[f"{request.method} {request.path}: {status}"] += 1


def _leaves(server: Server, seen: Soak) -> None:
    disconnect("127.0.0.1", server.port)
    seen.left += 1
    time.sleep(0.02)


def _changes(server: Server, seen: Soak) -> None:
    """Add a version of a model or remove it; one in five is broken."""
    model = server.models / MODELS[1]
    version, part = model / str(NEWEST), model / "part"
    if version.exists():
        shutil.rmtree(version)
    else:
        shutil.copytree(min(path for path in model.iterdir() if path.name.isdigit()), part)
        text = (part / "manifest.json").read_text()
        (part / "manifest.json").write_text(_renumbered(text) if random.random() < 0.8 else text[:500])
        part.rename(version)
    with server.client() as client:
        answer = client.post("/models/reload", headers={"Authorization": f"Bearer {KEY}"})
    with _lock:
        seen.answers["reload", answer.status_code] += 1
        seen.reloads += 1
    time.sleep(1)


def _renumbered(manifest: str) -> str:
    head, _, rest = manifest.partition('"version": ')
    return f'{head}"version": {NEWEST},{rest.partition(",")[2]}'


def _print(seen: Soak, minutes: float) -> None:
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(seen.statuses().items()))
    show(
        f"{seen.requests} responses in {minutes:g} minutes ({statuses}); {seen.left} clients disconnected,"
        f" {seen.reloads} reloads"
    )
    show(f"unexpected: {dict(seen.unexpected) or 'nothing'}")
    table = Table("after", "memory, MB", "descriptors", "threads")
    for held in seen.held[:: max(1, len(seen.held) // 10)] + seen.held[-1:]:
        table.add_row(f"{held.seconds:.0f} s", f"{held.memory:.0f}", str(held.descriptors), str(held.threads))
    show(table)
    table = Table("operation", "responses", "median, ms", "p99, ms")
    for name, seconds in sorted(seen.seconds.items()):
        median, p99 = np.quantile(seconds, [0.5, 0.99])
        table.add_row(name, str(len(seconds)), f"{1e3 * median:.1f}", f"{1e3 * p99:.0f}")
    show(table)


def main(minutes: Annotated[float, typer.Option(help="Duration in minutes.")] = 10) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        environment = {"VAE_MODELS_DIR": folder, "VAE_ADMIN_KEY": KEY, "VAE_LOG_LEVEL": "critical"}
        command = [sys.executable, "-m", "app"]
        with started(command, PORT, "/health/ready", VAE_PORT=str(PORT), **environment) as process:
            _print(soak(Server(PORT, process.pid, Path(folder)), 60 * minutes, interval=5), minutes)


if __name__ == "__main__":
    typer.run(main)
