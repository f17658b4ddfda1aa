"""The report of a training, for `report.json` and the terminal."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.table import Table

from training.fit.module import VaeModule


def make_report(
    trainer: L.Trainer, module: VaeModule, *, seconds: float, first_epoch: int, images: int
) -> dict[str, Any]:
    """Report a training that began at `first_epoch`, counted from 0, with `images` images per epoch.

    `epochs` counts all epochs; `epochs_now`, `seconds` and `images_per_second` exclude those before a resume.
    `skipped_steps` and `terms`, the loss terms in nats per image, are of the last epoch.
    """
    now, metrics = trainer.current_epoch - first_epoch, trainer.callback_metrics
    cuda, threads = module.device.type == "cuda", torch.get_num_threads()
    noun = "thread" if threads == 1 else "threads"
    return {
        "epochs": trainer.current_epoch,
        "epochs_now": now,
        "seconds": round(seconds, 1),
        "images_per_second": round(images * now / seconds, 1),
        "processes": trainer.world_size,
        "device": torch.cuda.get_device_name(module.device) if cuda else f"CPU, {threads} {noun}",
        "precision": module.recipe.training.precision,
        "parameters": sum(p.numel() for p in module.parameters() if p.requires_grad),
        "skipped_steps": int(metrics.get("train/skipped_steps", 0)),
        "terms": {name: round(float(value), 3) for name, value in sorted(metrics.items()) if "/skipped" not in name},
        "torch": torch.__version__,
    }


def report_table(report: dict[str, Any], folder: Path) -> Table:
    """The report as a table for a terminal."""
    table = Table("", "", title=str(folder), show_header=False)
    for name, value in report.items():
        if name != "terms":
            table.add_row(name.replace("_", " "), f"{value:,.1f}" if isinstance(value, float) else f"{value}")
    for name, value in report["terms"].items():
        table.add_row(name, f"{value:.3f} nats")
    return table
