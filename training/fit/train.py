"""Fit a recipe: everything around Lightning's loop."""

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
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from pydantic import ValidationError
from rich import print as show

from app.maths.likelihood import binarize
from training.data import check_labels, load_dataset
from training.errors import RecipeError
from training.fit.batches import ImageData
from training.fit.callbacks import EarlyStop, EpochCheckpoint, EpochLog, ProgressBar, Provenance, WeightEma
from training.fit.linear import onednn_wins, use_onednn
from training.fit.memory import keep_freed_memory
from training.fit.module import VaeModule
from training.fit.profiler import NoProfiler
from training.fit.report import make_report
from training.fit.warm_start import start_from
from training.recipe import Recipe

LIGHTNING_SAYS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    "Checkpoint directory .* exists and is not empty",
    "The number of training batches .* is smaller than the logging interval",
    r"It is recommended to use `self\.log\(.*, sync_dist=True\)`",
)
"""Warnings of its own code, and of what is meant so: a run goes on in its folder; what is logged are the means of an
epoch over all processes."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what Lightning tells of the hardware, of its loop and of other products. Other warnings stay."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in LIGHTNING_SAYS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def run_folder(runs: Path, recipe: Recipe) -> Path:
    """Where a recipe's checkpoint and log lie."""
    return runs / f"{recipe.name}-{recipe.version}"


@_quiet()
def train(
    recipe: Recipe,
    *,
    data_dir: Path,
    runs: Path,
    models: Path = Path("models"),
    accelerator: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    compile_nets: bool = False,
    fresh: bool = False,
) -> Path:
    """Train `recipe`, going on from its last checkpoint; returns the run's folder, which `fresh` empties first.

    The folder holds `last.ckpt`, written at the end of every epoch, `training.csv`, the loss terms of every epoch, the
    same for TensorBoard in `tensorboard`, and at the end `report.json`. Under torchrun the processes are as many as it
    started; else `devices` on each of `nodes`. With `compile_nets` torch.compile fuses the operations of encoder and
    decoder, and on a GPU records them as CUDA graphs: a minute at the start, and less time a step.

    Raises:
        RecipeError: the checkpoint there is another recipe's, or an earlier version's that counted steps elsewhere; or
            the recipe cannot run on these devices.
        DataError: the data set cannot be had, or a class has no images to train on.
        BundleError: the bundle to start from cannot be read.
    """
    folder = run_folder(runs, recipe)
    checkpoint = folder / "last.ckpt"
    resume = checkpoint.exists() and not fresh
    first_epoch = _next_epoch(load_checkpoint(recipe, runs), folder) if resume else 0
    if "LOCAL_WORLD_SIZE" in os.environ:  # torchrun's
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    _check_devices(recipe, accelerator, devices * nodes)
    dataset = load_dataset(recipe.data, data_dir)
    check_labels(dataset, recipe.data.title)
    keep_freed_memory()
    L.seed_everything(recipe.seed, verbose=False)
    channels, size = dataset.image_shape[:2]
    module = VaeModule(recipe, channels=channels, size=size)
    if recipe.training.start is not None and not resume:
        start_from(models / recipe.training.start, module)
    interactive = sys.stdout.isatty()
    trainer = L.Trainer(
        accelerator=accelerator,
        max_epochs=recipe.training.epochs,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        precision=recipe.training.precision,
        num_sanity_val_steps=0,
        logger=TensorBoardLogger(folder, name=None, version="tensorboard"),
        callbacks=_callbacks(recipe, module, folder, interactive),
        profiler=NoProfiler(),
        enable_progress_bar=False,  # ours shows the whole training
        enable_model_summary=interactive,
        use_distributed_sampler=False,
    )
    if compile_nets:
        module.compile_nets()
    elif trainer.strategy.root_device.type == "cpu" and recipe.training.precision == "32-true" and onednn_wins():
        use_onednn(module)
    if fresh and trainer.is_global_zero:  # or an end before the first checkpoint would leave the old run to go on with
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    splits = {"train": dataset.train, recipe.watched: getattr(dataset, recipe.watched)}
    images = {name: split.images for name, split in splits.items()}
    if recipe.binarization == "static":
        images = {name: binarize(images, recipe.seed) for name, images in images.items()}
    data = ImageData(images["train"], images[recipe.watched], batch_size=recipe.training.batch_size, seed=recipe.seed)
    began = time.monotonic()
    trainer.fit(module, data, ckpt_path=checkpoint if resume else None, weights_only=False)
    if trainer.is_global_zero and trainer.current_epoch > first_epoch:  # else it was done before, and has its report
        seconds, count = time.monotonic() - began, len(images["train"])
        report = make_report(trainer, module, seconds=seconds, first_epoch=first_epoch, images=count)
        (folder / "report.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
        if interactive:
            show(report.table(folder))
    return folder


def load_checkpoint(recipe: Recipe, runs: Path, name: str = "last") -> dict[str, Any]:
    """The last checkpoint of `recipe`'s run, or the best.

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
        same = Recipe.model_validate(checkpoint["recipe"]) == recipe  # validated, so that a later default is filled in
    except (KeyError, TypeError, ValidationError):
        same = False
    if not same:
        raise RecipeError(f"{path} is of another recipe: train with --fresh, or name a new version")
    return checkpoint


def _next_epoch(checkpoint: dict[str, Any], folder: Path) -> int:
    """The epoch after a checkpoint's, counted from 0. Raises RecipeError where going on would count its steps anew."""
    epoch = int(checkpoint["epoch"]) + 1
    counted = checkpoint["loops"]["fit_loop"]["epoch_loop.manual_optimization.optim_step_progress"]["total"][
        "completed"
    ]
    if counted < checkpoint["global_step"] and epoch < checkpoint["recipe"]["training"]["epochs"]:
        raise RecipeError(f"{folder} was begun by an earlier version of this program: train with --fresh")
    return epoch


def _check_devices(recipe: Recipe, accelerator: str, processes: int) -> None:
    """Refuse what would fail, or mean something else than it says, on these devices."""
    training = recipe.training
    if training.batch_size % processes:
        raise RecipeError(f"training.batch_size = {training.batch_size} cannot be shared by {processes} processes")
    if training.precision == "16-mixed" and (accelerator == "cpu" or not torch.cuda.is_available()):
        raise RecipeError("training.precision = '16-mixed' needs a GPU; on a CPU use '32-true' or 'bf16-mixed'")


def _callbacks(recipe: Recipe, module: VaeModule, folder: Path, interactive: bool) -> list[Callback]:
    loss = f"{recipe.watched}/{module.term_names[-1]}"
    columns = [f"{split}/{name}" for split in ("train", recipe.watched) for name in module.term_names]
    callbacks: list[Callback] = [EpochLog(folder / "training.csv", columns), Provenance(recipe)]
    save = partial(EpochCheckpoint, dirpath=folder, save_top_k=1, enable_version_counter=False)
    if recipe.training.early_stopping_epochs is not None:
        callbacks.append(EarlyStop(loss, patience=recipe.training.early_stopping_epochs))
        callbacks.append(save(filename="best", monitor=loss))
    callbacks.append(save(filename="last"))
    if recipe.training.ema_decay is not None:
        callbacks.append(WeightEma(recipe.training.ema_decay))
    if interactive:
        callbacks.append(ProgressBar())
    return callbacks
