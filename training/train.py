"""Fit a recipe: everything around Lightning's loop."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint, RichProgressBar

from training.batches import ImageData
from training.data import load_dataset
from training.module import VaeModule
from training.recipe import Recipe, RecipeError

COLUMNS = [
    "train/negative_elbo",
    "train/reconstruction",
    "train/kl",
    "test/negative_elbo",
    "test/reconstruction",
    "test/kl",
]


def run_folder(runs: Path, recipe: Recipe) -> Path:
    """Where a recipe's checkpoint and log lie."""
    return runs / f"{recipe.name}-{recipe.version}"


def train(recipe: Recipe, *, data_dir: Path, runs: Path, devices: int = 1, nodes: int = 1, fresh: bool = False) -> Path:
    """Train `recipe`, going on from its last checkpoint unless `fresh`; returns the run's folder.

    The folder holds `last.ckpt`, written at the end of every epoch, and `training.csv`, the loss terms of every epoch.

    Raises:
        RecipeError: the checkpoint there is another recipe's.
        DataError: the data set cannot be had.
    """
    folder = run_folder(runs, recipe)
    checkpoint = folder / "last.ckpt"
    resume = checkpoint.exists() and not fresh
    if resume:
        load_checkpoint(recipe, runs)
    dataset = load_dataset(recipe.data.dataset, data_dir)
    L.seed_everything(recipe.seed, verbose=False)
    channels, size = dataset.train.images.shape[1:3]
    module = VaeModule(recipe, channels=channels, size=size)
    folder.mkdir(parents=True, exist_ok=True)
    interactive = sys.stdout.isatty()
    trainer = L.Trainer(
        max_epochs=recipe.training.epochs,
        devices=devices,
        num_nodes=nodes,
        gradient_clip_val=recipe.training.gradient_clip,
        num_sanity_val_steps=0,
        logger=False,  # EpochLog writes what there is to say
        callbacks=_callbacks(recipe, folder, interactive),
        enable_progress_bar=interactive,
        enable_model_summary=interactive,
        use_distributed_sampler=False,
    )
    data = ImageData(dataset, batch_size=recipe.training.batch_size, seed=recipe.seed)
    trainer.fit(module, data, ckpt_path=checkpoint if resume else None, weights_only=False)
    return folder


def load_checkpoint(recipe: Recipe, runs: Path) -> dict[str, Any]:
    """The last checkpoint of `recipe`'s run.

    Raises:
        RecipeError: there is none, or it is of another recipe.
    """
    path = run_folder(runs, recipe) / "last.ckpt"
    if not path.exists():
        raise RecipeError(f"{path} is absent: train the recipe first")
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
    if checkpoint["recipe"] != recipe.model_dump(mode="json"):
        raise RecipeError(f"{path} is of another recipe: train with --fresh, or name a new version")
    return checkpoint


def _callbacks(recipe: Recipe, folder: Path, interactive: bool) -> list[Callback]:
    callbacks: list[Callback] = [
        EpochLog(folder / "training.csv"),
        Provenance(recipe),
        ModelCheckpoint(dirpath=folder, filename="last", save_top_k=1, enable_version_counter=False),
    ]
    if recipe.training.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=recipe.training.ema_decay, use_buffers=False))
    if interactive:
        callbacks.append(RichProgressBar())
    return callbacks


class EpochLog(Callback):
    """One CSV row, and one printed line, an epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {"epoch": str(trainer.current_epoch + 1)} | {name: f"{metrics[name]:.3f}" for name in COLUMNS}
        self.rows = [*self.rows[: trainer.current_epoch], row]
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, row.keys())
            writer.writeheader()
            writer.writerows(self.rows)
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class Provenance(Callback):
    """Writes into every checkpoint the recipe and the commit that it comes from."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.commit = recipe, current_commit()

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["recipe"] = self.recipe.model_dump(mode="json")
        checkpoint["commit"] = self.commit


def current_commit() -> str | None:
    """The repository's commit, with `-dirty` where tracked files differ; None outside a repository."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(  # noqa: S603 (a constant)
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
