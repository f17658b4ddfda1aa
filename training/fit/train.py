"""Train a recipe: everything around Lightning's loop."""

import json
import logging
import os
import pickle
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from pydantic import ValidationError
from rich import print as show
from torch.optim.swa_utils import get_ema_multi_avg_fn

from app.maths.likelihood import binarize
from training.data import Dataset, check_labels, load_dataset
from training.errors import RecipeError
from training.fit.batches import ImageData
from training.fit.callbacks import EarlyStop, EpochLog, ProgressBar
from training.fit.memory import keep_freed_memory
from training.fit.module import FORMAT, VaeModule
from training.fit.report import make_report, report_table
from training.fit.warm_start import start_from
from training.recipe import Recipe

IGNORED_WARNINGS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    "Checkpoint directory .* exists and is not empty",
    "The number of training batches .* is smaller than the logging interval",
    r"It is recommended to use `self\.log\(.*, sync_dist=True\)`",
)
"""Lightning's warnings about its own code, and about intended behavior: a run resumes in its folder, and logged values
are already means over all processes."""


@dataclass(frozen=True)
class Hardware:
    """The devices that a training uses. Under torchrun, its process counts replace `devices` and `nodes`."""

    accelerator: str = "auto"
    """Lightning's name of the device type: `auto`, `cpu` or `gpu`."""
    devices: int = 1
    """Devices per machine, with one process each."""
    nodes: int = 1
    """Number of machines."""
    compile_nets: bool = False
    """Whether to compile encoder and decoder with torch.compile; on a GPU, into CUDA graphs."""

    @property
    def processes(self) -> int:
        return self.devices * self.nodes

    def under_torchrun(self) -> "Hardware":
        """Return a copy with torchrun's process counts, if torchrun started this process."""
        if "LOCAL_WORLD_SIZE" not in os.environ:
            return self
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        return replace(self, devices=devices, nodes=int(os.environ["WORLD_SIZE"]) // devices)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide Lightning's messages about hardware, its loop and other products. Other warnings stay visible."""
    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        for message in IGNORED_WARNINGS:
            warnings.filterwarnings("ignore", message)
        yield


def run_folder(runs: Path, recipe: Recipe) -> Path:
    """The folder of a recipe's checkpoints and logs."""
    return runs / f"{recipe.name}-{recipe.version}"


@_quiet()
def train(
    recipe: Recipe,
    *,
    data_dir: Path,
    runs: Path,
    models: Path = Path("models"),
    hardware: Hardware = Hardware(),
    fresh: bool = False,
) -> Path:
    """Train `recipe`, resuming from its last checkpoint, and return the run's folder. `fresh` empties it first.

    The folder holds `last.ckpt`, written at the end of every epoch, `training.csv` with the loss terms of every epoch,
    the same for TensorBoard in `tensorboard`, and at the end `report.json`.

    Raises:
        RecipeError: the checkpoint is of another recipe or format, or the recipe cannot run on this hardware.
        DataError: the data set is missing or malformed, or a class has no images to train on.
        BundleError: the bundle to start from cannot be read.
    """
    folder = run_folder(runs, recipe)
    checkpoint = folder / "last.ckpt"
    resume = checkpoint.exists() and not fresh
    first_epoch = _next_epoch(load_checkpoint(recipe, runs), folder) if resume else 0
    hardware = hardware.under_torchrun()
    _check_hardware(recipe, hardware)
    dataset = load_dataset(recipe.data, data_dir)
    check_labels(dataset, recipe.data.title)
    keep_freed_memory()
    L.seed_everything(recipe.seed, verbose=False)
    channels, size = dataset.image_shape[:2]
    module = VaeModule(recipe, channels=channels, size=size)
    if recipe.training.start is not None and not resume:
        start_from(models / recipe.training.start, module)
    trainer = _make_trainer(recipe, module, folder, hardware)
    if hardware.compile_nets:
        module.compile_nets()
    if fresh and trainer.is_global_zero:  # a run that ends before its first checkpoint must not leave the old one
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    data = _image_data(recipe, dataset)
    began = time.monotonic()
    trainer.fit(module, data, ckpt_path=checkpoint if resume else None, weights_only=False)
    if trainer.is_global_zero and trainer.current_epoch > first_epoch:  # a run that was complete keeps its report
        seconds, images = time.monotonic() - began, len(dataset.train.images)
        report = make_report(trainer, module, seconds=seconds, first_epoch=first_epoch, images=images)
        (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        if sys.stdout.isatty():
            show(report_table(report, folder))
    return folder


def _make_trainer(recipe: Recipe, module: VaeModule, folder: Path, hardware: Hardware) -> L.Trainer:
    interactive = sys.stdout.isatty()
    return L.Trainer(
        accelerator=hardware.accelerator,
        max_epochs=recipe.training.epochs,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy="ddp" if hardware.processes > 1 else "auto",
        precision=recipe.training.precision,
        num_sanity_val_steps=0,
        logger=TensorBoardLogger(folder, name=None, version="tensorboard"),
        callbacks=_callbacks(recipe, module, folder, interactive),
        enable_progress_bar=False,  # `ProgressBar` shows the whole training, not an epoch
        enable_model_summary=interactive,
        use_distributed_sampler=False,
    )


def _image_data(recipe: Recipe, dataset: Dataset) -> ImageData:
    """Images of the training split and the watched split, binarized once if the recipe's binarization is static."""
    watched = dataset.validation if recipe.watched == "validation" else dataset.test
    train, held_out = dataset.train.images, watched.images
    if recipe.binarization == "static":
        train, held_out = binarize(train, recipe.seed), binarize(held_out, recipe.seed)
    return ImageData(train, held_out, batch_size=recipe.training.batch_size, seed=recipe.seed)


def load_checkpoint(recipe: Recipe, runs: Path, name: str = "last") -> dict[str, Any]:
    """Load the checkpoint `name` of `recipe`'s run: `last` or `best`.

    Raises:
        RecipeError: there is none, it is damaged, or it is of another recipe.
    """
    path = run_folder(runs, recipe) / f"{name}.ckpt"
    if not path.exists():
        raise RecipeError(f"{path} is absent: train the recipe first")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise RecipeError(f"{path} is damaged: train with --fresh") from error
    try:
        same = Recipe.model_validate(checkpoint["recipe"]) == recipe  # validated, to fill in newer defaults
    except (KeyError, TypeError, ValidationError):
        same = False
    if not same:
        raise RecipeError(f"{path} is of another recipe: train with --fresh, or name a new version")
    return checkpoint


def _next_epoch(checkpoint: dict[str, Any], folder: Path) -> int:
    """The epoch after a checkpoint's, counted from 0. A run in another format cannot go on."""
    epoch = int(checkpoint["epoch"]) + 1
    if checkpoint.get("format") != FORMAT and epoch < checkpoint["recipe"]["training"]["epochs"]:
        raise RecipeError(f"{folder} was begun by an earlier version of this program: train with --fresh")
    return epoch


def _check_hardware(recipe: Recipe, hardware: Hardware) -> None:
    """Reject a recipe that would fail on this hardware, or train differently than it says.

    Raises:
        RecipeError: the batch cannot be shared equally, or the precision needs a GPU.
    """
    training, processes = recipe.training, hardware.processes
    if training.batch_size % processes:
        raise RecipeError(f"training.batch_size = {training.batch_size} cannot be shared by {processes} processes")
    if training.precision == "16-mixed" and (hardware.accelerator == "cpu" or not torch.cuda.is_available()):
        raise RecipeError("training.precision = '16-mixed' needs a GPU; on a CPU use '32-true' or 'bf16-mixed'")


def _callbacks(recipe: Recipe, module: VaeModule, folder: Path, interactive: bool) -> list[Callback]:
    loss = f"{recipe.watched}/{module.term_names[-1]}"
    columns = [f"{split}/{name}" for split in ("train", recipe.watched) for name in module.term_names]
    callbacks: list[Callback] = [EpochLog(folder / "training.csv", columns)]
    save = partial(ModelCheckpoint, dirpath=folder, save_top_k=1, enable_version_counter=False)
    if recipe.training.early_stopping_epochs is not None:
        callbacks.append(EarlyStop(loss, patience=recipe.training.early_stopping_epochs))
        callbacks.append(save(filename="best", monitor=loss))
    callbacks.append(save(filename="last"))
    if recipe.training.ema_decay is not None:
        average = get_ema_multi_avg_fn(recipe.training.ema_decay)  # type: ignore[no-untyped-call]
        callbacks.append(WeightAveraging(use_buffers=False, multi_avg_fn=average))
    if interactive:
        callbacks.append(ProgressBar())
    return callbacks
