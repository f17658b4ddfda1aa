"""How many images a second we train, against the loop that one writes in an afternoon.

    .venv/bin/python -m bench.training --help

(As a module: started as a file, this one would hide the package `training`.)

Ours is `training.train.train` itself, by the recipe `mnist` and by the same with the MLP of `mnist-2d`. The peer is a
plain loop over a DataLoader of single items, with Adam, the same net and the same loss, but no logs, no clipping, no
schedule and no average of the weights. Rounds alternate. Every round of ours also alternates with the least that its
steps need (`Stopwatch.bare`): what a step takes beyond that is overhead, waiting for data included.
"""

import io
import json
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, NamedTuple
from unittest.mock import patch

import lightning as L
import numpy as np
import torch
import typer
from lightning.pytorch.callbacks import Callback
from numpy.typing import NDArray
from PIL import Image
from rich import print as show
from rich.table import Table
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from training import train as product
from training.architectures import build
from training.batches import Batches
from training.data import load_dataset
from training.module import VaeModule
from training.recipe import Recipe, load_recipe

NETS = {"residual": "mnist", "mlp": "mnist-2d"}
"""The recipes whose architectures they are; all else is the recipe `mnist`'s."""
WARM_UP = 20
"""Steps before the clock starts: threads, caches, workers."""
BLOCK = 20
"""Steps of ours, then as many bare ones."""
WORKERS = (0, 2)
"""Of the peer's DataLoader; the faster one counts."""


class Times(NamedTuple):
    """Seconds a step of one round of ours."""

    step: float
    bare: float
    wait: float
    """For the next batch, of a bare step; not within `bare`."""


class Stopwatch(Callback):
    """Times `steps` steps of a training after the warm-up, and as many bare ones in between; then ends it."""

    def __init__(self, steps: int) -> None:
        self.steps, self.last = steps, 0.0
        self.ours: list[float] = []
        self.bares: list[float] = []
        self.waits: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, VaeModule)
        decay = pl_module.recipe.training.ema_decay
        self.average = get_ema_multi_avg_fn(decay) if decay else None  # type: ignore[no-untyped-call]
        self.weights = list(pl_module.parameters())
        self.averages = [weight.detach().clone() for weight in self.weights]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now, step = time.perf_counter(), batch_idx + 1 - WARM_UP
        if step > 0:
            self.ours.append(now - self.last)
        if step >= 0 and step % BLOCK == 0:
            self.bare(trainer, pl_module, BLOCK)
        trainer.should_stop = step >= self.steps
        self.last = time.perf_counter()

    def bare(self, trainer: L.Trainer, module: L.LightningModule, steps: int) -> None:
        """The least that steps of this recipe need: forward, backward, clipping, the optimizer, the average.

        On the trainer's own batches, but without Lightning, and without what our module counts for its log.
        """
        assert isinstance(module, VaeModule)
        assert isinstance(trainer.train_dataloader, Batches)
        optimizer, batches = trainer.optimizers[0], iter(trainer.train_dataloader)
        next(batches)  # which shuffles; that is once an epoch
        for _ in range(steps):
            began = time.perf_counter()
            batch = next(batches)
            ready = time.perf_counter()
            module.drop_gradient()
            module.loss(module.terms(batch)).backward()  # type: ignore[no-untyped-call]
            module.configure_gradient_clipping(optimizer)
            optimizer.step()
            if self.average is not None:
                self.average(self.averages, self.weights, 0)
            self.waits.append(ready - began)
            self.bares.append(time.perf_counter() - ready)


def train_ours(recipe: Recipe, data_dir: Path, steps: int) -> Times:
    """A round of ours: `train` in a new folder, from the first step of the first epoch."""
    stopwatch, callbacks = Stopwatch(steps), product._callbacks
    with (
        TemporaryDirectory() as runs,
        redirect_stdout(io.StringIO()),  # the epoch's line
        patch.object(product, "_callbacks", lambda *given: [*callbacks(*given), stopwatch]),
    ):
        product.train(recipe, data_dir=data_dir, runs=Path(runs), accelerator="cpu")
    warm = slice(BLOCK, None)  # the first block of bare steps is theirs to warm up
    return Times(*(sum(times) / len(times) for times in (stopwatch.ours, stopwatch.bares[warm], stopwatch.waits[warm])))


class Digits(Dataset[tuple[Tensor, int]]):
    """Digits and labels one by one, as torchvision's MNIST gives them with ToTensor and a random binarization."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
        self.images, self.labels = torch.from_numpy(images.copy()), torch.from_numpy(labels.copy())

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.images[index].numpy())
        return torch.bernoulli(to_tensor(picture)), int(self.labels[index])


def to_tensor(picture: Image.Image) -> Tensor:
    """`[1, H, W]` in [0, 1], by the same steps as torchvision's ToTensor."""
    pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))
    pixels = pixels.view(picture.height, picture.width, len(picture.getbands()))
    return pixels.permute((2, 0, 1)).contiguous().to(dtype=torch.get_default_dtype()).div(255)


def train_peer(recipe: Recipe, data_dir: Path, steps: int, workers: int) -> float:
    """Seconds a step of a round of the plain loop."""
    split = load_dataset(recipe.data, data_dir).train
    assert split.labels is not None
    digits = Digits(split.images[:, 0], split.labels)
    encoder, decoder = build(recipe.architecture, channels=1, outputs=1, size=28, latent=recipe.latent, heads=2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=recipe.training.learning_rate)
    loader = DataLoader(digits, batch_size=recipe.training.batch_size, shuffle=True, num_workers=workers)
    total_loss, began = 0.0, 0.0
    for step, (images, _) in enumerate(loader):
        if step == WARM_UP:
            began = time.perf_counter()
        if step == WARM_UP + steps:
            break
        mean, log_var = encoder(images)
        latents = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        reconstruction = functional.binary_cross_entropy_with_logits(decoder(latents), images, reduction="sum")
        kl = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
        loss = (reconstruction + kl) / len(images)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total_loss += loss.item()
    return (time.perf_counter() - began) / steps


def _process(threads: int) -> ProcessPoolExecutor:
    """A process of its own for each side: ours changes how the process keeps memory."""
    return ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,))


def measure(recipe: Recipe, data_dir: Path, rounds: int, steps: int) -> dict[str, Any]:
    """Medians over alternating rounds."""
    ours: list[Times] = []
    peers: dict[int, list[float]] = {workers: [] for workers in WORKERS}
    with _process(torch.get_num_threads()) as our_process, _process(torch.get_num_threads()) as their_process:
        for _ in range(rounds):
            ours.append(our_process.submit(train_ours, recipe, data_dir, steps).result())
            for workers, times in peers.items():
                times.append(their_process.submit(train_peer, recipe, data_dir, steps, workers).result())
    best = min(WORKERS, key=lambda workers: median(peers[workers]))
    speed = {f"peer, {n} workers": recipe.training.batch_size / median(times) for n, times in peers.items()}
    ratios = [peer / our.step for our, peer in zip(ours, peers[best], strict=True)]
    return {
        "architecture": recipe.architecture.model_dump(),
        "batch_size": recipe.training.batch_size,
        "images_per_second": {"ours": recipe.training.batch_size / median(our.step for our in ours)} | speed,
        "ratio": median(peers[best]) / median(our.step for our in ours),
        "ratio_of_rounds": [min(ratios), max(ratios)],
        "overhead_percent": 100 * median(1 - our.bare / our.step for our in ours),
        "waiting_percent": 100 * median(our.wait / our.step for our in ours),
    }


def table(results: dict[str, dict[str, Any]], title: str) -> Table:
    table = Table("", *results, title=title)
    cells = [_cells(result) for result in results.values()]
    for name in cells[0]:
        table.add_row(name, *(column[name] for column in cells))
    return table


def _cells(result: dict[str, Any]) -> dict[str, str]:
    lowest, highest = result["ratio_of_rounds"]
    return {f"{name}, images/s": f"{speed:,.0f}" for name, speed in result["images_per_second"].items()} | {
        "ours to the faster peer": f"{result['ratio']:.2f}",
        "in single rounds": f"{lowest:.2f} to {highest:.2f}",
        "overhead, waiting included": f"{result['overhead_percent']:.1f} %",
        "waiting for data": f"{result['waiting_percent']:.1f} %",
    }


def processor() -> str:
    """The CPU's name and family, where the system tells them: the family decides how linear layers compute."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts = {name.strip(): value for name, _, value in (line.partition(": ") for line in lines)}
    name = facts.get("model name", platform.processor())
    return f"{name}, family {facts['cpu family']}" if "cpu family" in facts else name


def main(
    net: Annotated[Literal["residual", "mlp"] | None, typer.Argument(help="Both by default.")] = None,
    data_dir: Annotated[Path, typer.Option(envvar="VAE_DATA_DIR", help="MNIST lies here.")] = Path("data"),
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    steps: Annotated[int, typer.Option(min=BLOCK, max=400, help="Of a round; within an epoch.")] = 200,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; its own choice by default.")] = None,
) -> None:
    """Print images a second of ours and the peer's, their ratio and our overhead: a table, and a line of JSON."""
    torch.set_num_threads(threads or torch.get_num_threads())
    machine = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "steps": steps,
        "python": platform.python_version(),
    } | {name: version(name) for name in ("torch", "lightning", "numpy", "pillow")}
    results = {}
    for name in [net] if net else NETS:
        values = load_recipe("mnist").model_dump()
        # Fresh weights have gradients longer than that recipe's limit, and a step that is skipped is a short one.
        values["training"] |= {"start": None, "gradient_skip": None}
        recipe = Recipe.model_validate(values | {"architecture": load_recipe(NETS[name]).architecture.model_dump()})
        results[name] = measure(recipe, data_dir, rounds, steps)
    show(table(results, ", ".join(f"{name} {value}" for name, value in machine.items())))
    print(json.dumps(machine | {"nets": results}))


if __name__ == "__main__":
    typer.run(main)
