"""Callbacks of the training loop: early stopping, log, progress bar."""

import csv
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class EarlyStop(EarlyStopping):
    """Early stopping that is final: resuming a stopped run trains no further epoch."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED


class EpochLog(Callback):
    """Writes one CSV row and prints one line per epoch."""

    def __init__(self, path: Path, columns: list[str]) -> None:
        self.path, self.columns = path, columns
        self.rows: list[dict[str, str]] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero and self.rows:  # resumed: the file may be missing or older than the checkpoint
            self._write()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {"epoch": str(trainer.current_epoch + 1)} | {name: f"{metrics[name]:.3f}" for name in self.columns}
        row |= {"train/skipped_steps": f"{metrics['train/skipped_steps']:.0f}"}
        self.rows = [*self.rows[: trainer.current_epoch], row]
        if trainer.is_global_zero:
            self._write()
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]

    def _write(self) -> None:
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.rows[0].keys())
            writer.writeheader()
            writer.writerows(self.rows)


class ProgressBar(Callback):
    """A progress bar of the whole training, with the loss of the step in nats and the remaining time."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps, {task.fields[nats]:.1f} nats,"),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            speed_estimate_period=300,
        )
        self.task = self.progress.add_task("", total=None, epoch="", nats=0.0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self.progress.reset(self.task, total=trainer.estimated_stepping_batches, completed=trainer.global_step)
            self.progress.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero:
            epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
            self.progress.update(self.task, completed=trainer.global_step, epoch=epoch, nats=float(outputs["loss"]))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self.progress.update(self.task, completed=trainer.global_step)
            self.progress.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.progress.stop()
