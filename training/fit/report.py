"""The report of a training, for `report.json` and the terminal."""

from dataclasses import asdict, dataclass
from pathlib import Path

import lightning as L
import torch
from rich.table import Table

from training.fit.module import VaeModule


@dataclass(frozen=True)
class Report:
    """Results of one call of `train`. `seconds` and `images_per_second` exclude epochs trained before a resume."""

    epochs: int
    """Epochs trained in total."""
    epochs_now: int
    """Epochs trained by this call."""
    seconds: float
    images_per_second: float
    processes: int
    device: str
    precision: str
    parameters: int
    skipped_steps: int
    """Steps of the last epoch that were skipped because of their gradient."""
    terms: dict[str, float]
    """Loss terms of the last epoch, in nats per image."""
    torch: str

    def table(self, folder: Path) -> Table:
        """The report as a table for a terminal."""
        table = Table("", "", title=str(folder), show_header=False)
        for name, value in asdict(self).items():
            if name != "terms":
                table.add_row(name.replace("_", " "), f"{value:,.1f}" if isinstance(value, float) else f"{value}")
        for name, value in self.terms.items():
            table.add_row(name, f"{value:.3f} nats")
        return table


def make_report(trainer: L.Trainer, module: VaeModule, *, seconds: float, first_epoch: int, images: int) -> Report:
    """Make the report of a training that began at `first_epoch`, counted from 0, with `images` images per epoch."""
    now, metrics = trainer.current_epoch - first_epoch, trainer.callback_metrics
    cuda, threads = module.device.type == "cuda", torch.get_num_threads()
    noun = "thread" if threads == 1 else "threads"
    return Report(
        epochs=trainer.current_epoch,
        epochs_now=now,
        seconds=round(seconds, 1),
        images_per_second=round(images * now / seconds, 1),
        processes=trainer.world_size,
        device=torch.cuda.get_device_name(module.device) if cuda else f"CPU, {threads} {noun}",
        precision=module.recipe.training.precision,
        parameters=sum(p.numel() for p in module.parameters() if p.requires_grad),
        skipped_steps=int(metrics.get("train/skipped_steps", 0)),
        terms={name: round(float(value), 3) for name, value in sorted(metrics.items()) if "/skipped" not in name},
        torch=torch.__version__,
    )
