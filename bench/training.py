"""Measure training throughput, in images per second, compared with a minimal training loop.

    .venv/bin/pip install --no-deps --target torchvision torchvision==0.28.0
    .venv/bin/python -m bench.training --torchvision torchvision

(Run it as a module: as a file, it would hide the package `training`. torchvision needs its own folder, because
torchmetrics, a dependency of Lightning, imports an installed one, and fails if it is for another build of torch.)

Our side is `training.fit.train.train` with the recipe `mnist`, and with that recipe and the MLP of `mnist-2d`. The peer
is `bench/plain_training.py`: the same net and loss on torchvision's digits, with both kinds of its transforms. Each
side has its own process, and they take turns of a few steps, so that changes in the machine's speed affect all of them.
Our side also alternates with bare steps (`Stopwatch.bare`), the minimum work of a step: the time that a step takes
beyond a bare one is overhead, including the wait for data.
"""

import io
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import distributions, version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, NamedTuple
from unittest.mock import patch

import lightning as L
import torch
import typer
from lightning.pytorch.callbacks import Callback
from rich import print as show
from rich.table import Table

from training.fit import train as product
from training.fit.batches import ImageBatches
from training.fit.module import VaeModule
from training.recipe import Recipe, load_recipe

CHUNK = 8
"""Steps of our side per measurement, followed by as many bare steps."""
NETS = {"residual": "mnist", "mlp": "mnist-2d"}
"""The recipe of each architecture; everything else comes from the recipe `mnist`."""
SETTLE = CHUNK
"""Unmeasured steps at the start of a turn: threads wake, caches fill, prefetched batches are used up."""
TRANSFORMS = ("ToTensor", "v2")
"""Kinds of torchvision's transforms: as in most code, and as its documentation says."""
WORKERS = (0, 2)
"""Workers of the peer's DataLoader; the faster number counts."""
EPOCH = 60_000 // 128
"""Steps of an epoch; the validation at its end is not measured."""


class Times(NamedTuple):
    """Seconds per step of a chunk of our steps."""

    step: float
    bare: float
    """Seconds per bare step after the chunk, without its wait for a batch."""
    wait: float
    """Seconds per bare step that it waited for its batch."""


class Side:
    """A side of the comparison, in its own process, which trains in its turns."""

    def __init__(self, run: Callable[..., None], *arguments: Any) -> None:
        self.turns, theirs = get_context("spawn").Pipe()
        self.process = get_context("spawn").Process(target=_quietly, args=(run, theirs, *arguments))
        self.process.start()
        theirs.close()

    def take_turn(self) -> Any:
        """Let the side train for one turn, and return its measurements."""
        self.turns.send(True)
        return self.turns.recv()

    def end(self) -> None:
        self.turns.send(None)
        self.process.join()


def _quietly(run: Callable[..., None], turns: Connection, threads: int, *arguments: Any) -> None:
    torch.set_num_threads(threads)
    with redirect_stdout(io.StringIO()):  # the epoch's line
        run(turns, *arguments)


class Stopwatch(Callback):
    """Runs `chunks` chunks of training steps per turn, and as many bare steps after each chunk."""

    def __init__(self, turns: Connection, chunks: int) -> None:
        self.turns, self.chunks = turns, chunks
        self.times: list[Times] = []
        self.began = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.next_turn(trainer)
        self.began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % CHUNK:
            return
        step = (time.perf_counter() - self.began) / CHUNK
        self.times.append(Times(step, *self.bare(trainer, pl_module)))
        if len(self.times) == 1 + self.chunks:
            self.turns.send(self.times[1:])  # the first chunk settles
            self.next_turn(trainer)
        self.began = time.perf_counter()

    def next_turn(self, trainer: L.Trainer) -> None:
        self.times = []
        trainer.should_stop = self.turns.recv() is None

    def bare(self, trainer: L.Trainer, module: L.LightningModule) -> tuple[float, float]:
        """Run the minimum work of steps: forward, backward, clipping, the optimizer with its average of the weights.

        Uses the trainer's own batches, without Lightning and the metrics of our module. Returns seconds per step of
        work, and of waiting for the batch.
        """
        assert isinstance(module, VaeModule)
        assert isinstance(trainer.train_dataloader, ImageBatches)
        optimizer, batches = trainer.optimizers[0], iter(trainer.train_dataloader)
        next(batches)  # the first one shuffles, once an epoch
        step = wait = 0.0
        for _ in range(CHUNK):
            began = time.perf_counter()
            batch = next(batches)
            ready = time.perf_counter()
            optimizer.zero_grad()
            module.loss(module.terms(batch)).backward()  # type: ignore[no-untyped-call]
            module.on_before_optimizer_step(optimizer)
            optimizer.step()
            step, wait = step + time.perf_counter() - ready, wait + ready - began
        return step / CHUNK, wait / CHUNK


def train_ours(turns: Connection, recipe: Recipe, data_dir: Path, chunks: int) -> None:
    """Train in a new folder, from the first step of the first epoch."""
    stopwatch, callbacks = Stopwatch(turns, chunks), product._callbacks
    with (
        TemporaryDirectory() as runs,
        patch.object(product, "_callbacks", lambda *given: [*callbacks(*given), stopwatch]),
    ):
        product.train(recipe, data_dir=data_dir, runs=Path(runs), hardware=product.Hardware("cpu"))


def train_peer(
    turns: Connection, recipe: Recipe, data_dir: Path, chunks: int, torchvision: Path, transforms: str, workers: int
) -> None:
    sys.path.append(str(torchvision))
    from bench.plain_training import plain_steps

    training = plain_steps(recipe, data_dir, transforms, workers)
    while turns.recv():
        for _ in range(SETTLE):
            next(training)
        began = time.perf_counter()
        for _ in range(chunks * CHUNK):
            next(training)
        turns.send((time.perf_counter() - began) / (chunks * CHUNK))


@contextmanager
def sides(
    recipe: Recipe, data_dir: Path, chunks: int, torchvision: Path
) -> Iterator[tuple[Side, dict[str, dict[int, Side]]]]:
    """Start our side, and the peer with each kind of transforms and each number of workers."""
    arguments = (torch.get_num_threads(), recipe, data_dir, chunks)
    ours = Side(train_ours, *arguments)
    arguments = (*arguments, torchvision)
    peers = {name: {n: Side(train_peer, *arguments, name, n) for n in WORKERS} for name in TRANSFORMS}
    try:
        yield ours, peers
    finally:
        for side in [ours, *(side for group in peers.values() for side in group.values())]:
            side.end()


def measure(recipe: Recipe, data_dir: Path, rounds: int, chunks: int, torchvision: Path) -> dict[str, Any]:
    """Return medians over rounds: every side has a turn in each round, and the first round only warms up."""
    ours: list[list[Times]] = []
    peers: dict[str, dict[int, list[float]]] = {name: {n: [] for n in WORKERS} for name in TRANSFORMS}
    with sides(recipe, data_dir, chunks, torchvision) as (our_side, their_sides):
        for _ in range(1 + rounds):
            ours.append(our_side.take_turn())
            for name, group in their_sides.items():
                for workers, side in group.items():
                    peers[name][workers].append(side.take_turn())
    size = recipe.training.batch_size
    steps = [sum(times.step for times in turn) / chunks for turn in ours[1:]]
    each = [times for turn in ours[1:] for times in turn]
    return {
        "architecture": recipe.architecture.model_dump(),
        "batch_size": size,
        "images_per_second": size / median(steps),
        "overhead_percent": 100 * median(1 - times.bare / times.step for times in each),
        "waiting_percent": 100 * median(times.wait / times.step for times in each),
        "peers": {name: _compare(steps, {n: times[1:] for n, times in of.items()}, size) for name, of in peers.items()},
    }


def _compare(ours: list[float], peers: dict[int, list[float]], size: int) -> dict[str, Any]:
    best = min(peers, key=lambda workers: median(peers[workers]))
    ratios = [theirs / step for step, theirs in zip(ours, peers[best], strict=True)]
    return {
        "images_per_second": {f"{workers} workers": size / median(times) for workers, times in peers.items()},
        "ratio": median(ratios),
        "quartiles": [quantiles(ratios)[0], quantiles(ratios)[2]],
    }


def table(results: dict[str, dict[str, Any]], title: str) -> Table:
    table = Table("", *results, title=title)
    cells = [_cells(result) for result in results.values()]
    for name in cells[0]:
        table.add_row(name, *(column[name] for column in cells))
    return table


def _cells(result: dict[str, Any]) -> dict[str, str]:
    cells = {"ours, images/s": f"{result['images_per_second']:,.0f}"}
    for name, peer in result["peers"].items():
        cells |= {f"{name}, {n}, images/s": f"{speed:,.0f}" for n, speed in peer["images_per_second"].items()}
        lowest, highest = peer["quartiles"]
        cells |= {f"ours to {name}": f"{peer['ratio']:.2f} ({lowest:.2f} to {highest:.2f})"}
    return cells | {
        "overhead, waiting included": f"{result['overhead_percent']:.1f} %",
        "waiting for data": f"{result['waiting_percent']:.1f} %",
    }


def processor() -> str:
    """The CPU's name and family, if the system reports them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = {name.strip(): value for name, _, value in (line.partition(": ") for line in lines)}
    name = facts.get("model name", platform.processor())
    return f"{name}, family {facts['cpu family']}" if "cpu family" in facts else name


def main(
    net: Annotated[Literal["residual", "mlp"] | None, typer.Argument(help="Both by default.")] = None,
    *,
    torchvision: Annotated[Path, typer.Option(exists=True, help="Folder that torchvision was installed into.")],
    data_dir: Annotated[Path, typer.Option(envvar="VAE_DATA_DIR", help="Folder of MNIST.")] = Path("data"),
    rounds: Annotated[int, typer.Option(min=2)] = 13,
    chunks: Annotated[int, typer.Option(min=1, help=f"Chunks of {CHUNK} steps per turn.")] = 3,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch; its own choice by default.")] = None,
) -> None:
    """Print images per second of both sides, the ratios with quartiles, and our overhead, as a table and JSON."""
    if (1 + rounds) * (1 + chunks) * CHUNK > EPOCH:
        raise typer.BadParameter(f"(1 + rounds) * (1 + chunks) * {CHUNK} exceeds an epoch, {EPOCH} steps")
    torch.set_num_threads(threads or torch.get_num_threads())
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "chunks": chunks,
        "python": platform.python_version(),
    } | {name: version(name) for name in ("torch", "lightning", "numpy", "pillow")}
    (found,) = distributions(name="torchvision", path=[str(torchvision)])
    machine["torchvision"] = found.version
    results = {}
    for name in [net] if net else NETS:
        values = load_recipe("mnist").model_dump()
        # Gradients of fresh weights exceed that recipe's limit, and a skipped step would be too short.
        values["training"] |= {"start": None, "gradient_skip": None}
        recipe = Recipe.model_validate(values | {"architecture": load_recipe(NETS[name]).architecture.model_dump()})
        results[name] = measure(recipe, data_dir, rounds, chunks, torchvision)
    show(table(results, ", ".join(f"{name} {value}" for name, value in machine.items())))
    print(json.dumps(machine | {"nets": results}))


if __name__ == "__main__":
    typer.run(main)
