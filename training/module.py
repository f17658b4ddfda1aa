"""The LightningModule: one training step that fits on a screen. Loop, devices and checkpoints are Lightning's."""

import math

import lightning as L
import numpy as np
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from training.architectures import build
from training.batches import Batches
from training.objective import binarize, cross_entropy, draw, kl_divergence
from training.recipe import Recipe


class VaeModule(L.LightningModule):
    """Encoder and decoder of `recipe` for `channels` x `size` x `size` images, and how they are trained."""

    def __init__(self, recipe: Recipe, *, channels: int, size: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.encoder, self.decoder = build(
            recipe.architecture,
            channels=channels,
            size=size,
            latent=recipe.latent,
            heads=2 if recipe.stochastic else 1,
        )
        # Half the time of a convolution on a CPU; bit for bit the same weights.
        self.to(memory_format=torch.channels_last)

    def loss_terms(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and KL terms `[N]`, each, of uint8 images `[N, C, H, W]`."""
        pixels = images.float().div_(255).contiguous(memory_format=torch.channels_last)
        if self.recipe.binarization == "dynamic":
            pixels = binarize(pixels)
        heads = self.encoder(pixels)
        latents = draw(*heads) if self.recipe.stochastic else heads[0]
        reconstruction = cross_entropy(self.decoder(latents), pixels)
        kl = kl_divergence(*heads) if self.recipe.stochastic else torch.zeros_like(reconstruction)
        return reconstruction, kl

    def training_step(self, images: Tensor, _: int) -> Tensor:
        reconstruction, kl = (term.mean() for term in self.loss_terms(images))
        self._log("train", reconstruction, kl, len(images))
        return reconstruction + self.kl_weight() * kl

    def validation_step(self, images: Tensor, _: int) -> None:
        reconstruction, kl = (term.mean() for term in self.loss_terms(images))
        self._log("test", reconstruction, kl, len(images))

    def kl_weight(self) -> float:
        """Weight of the KL term at this step: rises linearly to 1 over the warm-up."""
        steps = self.recipe.objective.kl_warmup_epochs * self._steps_an_epoch
        return min(1.0, (self.global_step + 1) / steps) if steps else 1.0

    def on_train_epoch_start(self) -> None:
        # Every epoch starts from its own seed, so that a run resumed at an epoch's end goes on to the same numbers.
        seed = np.random.SeedSequence([self.recipe.seed, self.current_epoch, self.global_rank])
        torch.manual_seed(int(seed.generate_state(1)[0]))
        batches = self.trainer.train_dataloader
        assert isinstance(batches, Batches)
        batches.set_epoch(self.current_epoch)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        training = self.recipe.training
        kind = {"adam": torch.optim.Adam, "adamax": torch.optim.Adamax}[training.optimizer]
        optimizer = kind(self.parameters(), lr=training.learning_rate)
        total = int(self.trainer.estimated_stepping_batches)

        def factor(step: int) -> float:
            rise = (
                min(1.0, (step + 1) / training.learning_rate_warmup_steps)
                if training.learning_rate_warmup_steps
                else 1.0
            )
            fall = 0.5 * (1 + math.cos(math.pi * step / total)) if training.schedule == "cosine" else 1.0
            return rise * fall

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def _steps_an_epoch(self) -> int:
        return int(self.trainer.num_training_batches)

    def _log(self, split: str, reconstruction: Tensor, kl: Tensor, rows: int) -> None:
        terms = {"reconstruction": reconstruction, "kl": kl, "negative_elbo": reconstruction + kl}
        for name, value in terms.items():
            self.log(
                f"{split}/{name}",
                value.detach(),
                on_step=False,
                on_epoch=True,
                prog_bar=name == "negative_elbo",
                batch_size=rows,
                sync_dist=True,
            )
