"""What becomes of the server in hours of mixed traffic, in some minutes of it.

    .venv/bin/python -m bench.soak --help

Starts ours on two models, and lets clients ask for everything, wrongly at times, while others leave before they are
answered and models come and go. Prints errors by kind, what the process holds over time, and how long answers took.
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

from bench.overload import resident
from bench.serving import ROOT, started
from bench.traffic import MODELS, any_ask, leave

PORT = 18091
KEY = "a-key-of-the-soak"
NEWEST = 9
"""The version that comes and goes."""


@dataclass(frozen=True)
class Held:
    """What the server's process holds, `seconds` after the beginning."""

    seconds: float
    memory: float
    """MB."""
    descriptors: int
    threads: int


@dataclass
class Soak:
    """What was seen."""

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By operation and status."""
    unexpected: Counter[str] = field(default_factory=Counter)
    """Answers that a request of its kind has no reason to get, and those that never came."""
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """That answers took, by operation; without refusals."""
    left: int = 0
    """Clients that did not stay,"""
    reloads: int = 0
    """and changes of the models."""
    held: list[Held] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """Answers in all."""
        return sum(self.answers.values())

    def statuses(self) -> Counter[int]:
        """Answers by status."""
        total = Counter[int]()
        for (_, status), count in self.answers.items():
            total[status] += count
        return total


@dataclass
class Server:
    """Where it answers, its process, and its models directory."""

    port: int
    pid: int
    models: Path

    def client(self) -> httpx2.Client:
        """A client of it."""
        return httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def held(self, began: float) -> Held:
        """What its process holds now."""
        folder = Path(f"/proc/{self.pid}")
        counts = (len(os.listdir(folder / name)) for name in ("fd", "task"))
        return Held(time.monotonic() - began, resident(self.pid), *counts)


def prepare(models: Path) -> None:
    """Put the newest versions of the models into a directory."""
    for name in MODELS:
        newest = max((ROOT / "models" / name).iterdir(), key=lambda path: int(path.name))
        shutil.copytree(newest, models / name / newest.name)


def soak(server: Server, seconds: float, *, clients: int = 6, interval: float = 1.0) -> Soak:
    """Use a server whose admin key is KEY for so long, and look at it every `interval` seconds."""
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
    time.sleep(6)  # connections that are kept are closed
    seen.held.append(server.held(began))
    return seen


def _again(job: Callable[[Server, Soak], None], server: Server, seen: Soak, done: threading.Event) -> None:
    while not done.is_set():
        job(server, seen)


_lock = threading.Lock()


def _asks(server: Server, seen: Soak) -> None:
    """Some requests over one connection."""
    with server.client() as client:
        for _ in range(random.choice((1, 10, 50))):
            _ask(client, seen)


def _ask(client: httpx2.Client, seen: Soak) -> None:
    ask, began = any_ask(), time.perf_counter()
    try:
        status = ask.send(client)
    except httpx2.TransportError as error:
        with _lock:
            seen.unexpected[f"{ask.name}: {type(error).__name__}"] += 1
        return
    with _lock:
        seen.answers[ask.name, status] += 1
        if status != 503:
            seen.seconds[ask.name].append(time.perf_counter() - began)
        if status not in (*ask.statuses, 503):
            seen.unexpected[f"{ask.method} {ask.path}: {status}"] += 1


def _leaves(server: Server, seen: Soak) -> None:
    leave("127.0.0.1", server.port)
    seen.left += 1
    time.sleep(0.02)


def _changes(server: Server, seen: Soak) -> None:
    """Put a version of a model there, or take it away; now and then it is broken."""
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
        f"{seen.requests} answers in {minutes:g} minutes ({statuses}); {seen.left} clients left, {seen.reloads} reloads"
    )
    show(f"unexpected: {dict(seen.unexpected) or 'nothing'}")
    table = Table("after", "memory, MB", "descriptors", "threads")
    for held in seen.held[:: max(1, len(seen.held) // 10)] + seen.held[-1:]:
        table.add_row(f"{held.seconds:.0f} s", f"{held.memory:.0f}", str(held.descriptors), str(held.threads))
    show(table)
    table = Table("operation", "answers", "median, ms", "p99, ms")
    for name, seconds in sorted(seen.seconds.items()):
        median, p99 = np.quantile(seconds, [0.5, 0.99])
        table.add_row(name, str(len(seconds)), f"{1e3 * median:.1f}", f"{1e3 * p99:.0f}")
    show(table)


def main(minutes: Annotated[float, typer.Option(help="How long.")] = 10) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        environment = {"VAE_MODELS_DIR": folder, "VAE_ADMIN_KEY": KEY, "VAE_LOG_LEVEL": "critical"}
        command = [sys.executable, "-m", "app"]
        with started(command, PORT, "/health/ready", VAE_PORT=str(PORT), **environment) as process:
            _print(soak(Server(PORT, process.pid, Path(folder)), 60 * minutes, interval=5), minutes)


if __name__ == "__main__":
    typer.run(main)
