"""The LightningModule, with the training step. Lightning handles loop, devices and checkpoints."""

import math
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from training.architectures.shape import NetShape
from training.errors import RecipeError
from training.fit.augment import augment
from training.fit.batches import ImageBatch, ImageBatches
from training.fit.likelihood import make_likelihood
from training.fit.objective import dreg_loss, free_bits, importance_weights, iwae, kl_divergence
from training.recipe import Elbo, Iwae, Recipe

FORMAT = 2
"""Format of checkpoints. Others have steps and the average of the weights elsewhere: their runs cannot go on."""
VALIDATION_EPOCH = 2**31
"""Epoch number in the seed of validation draws: they are the same in every epoch, so that epochs can be compared."""


class LossTerms(NamedTuple):
    """Loss terms of a batch of N images, in nats."""

    reconstruction: Tensor
    """-log p(x|z) `[N]`, averaged over the draws."""
    kl: Tensor
    """KL `[N, d]` of each latent dimension; zero without a posterior."""
    log_weights: Tensor | None
    """log p(x, z) / q(z|x) `[k, N]` of each draw; None unless the objective is IWAE."""
    latents: Tensor
    """Draws `[k, N, d]` from the posterior, or its mean if there is no posterior."""


class VaeModule(L.LightningModule):
    """Encoder and decoder of `recipe` for `channels` x `size` x `size` images, and their training step.

    Every random number is drawn for the whole batch of all processes, and each process uses its own rows. So an image
    gets the same pixels and the same draws with any number of processes.

    Raises:
        RecipeError: the architecture cannot take images of this size.
    """

    def __init__(self, recipe: Recipe, *, channels: int, size: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.likelihood = make_likelihood(recipe.likelihood)
        shape = NetShape(
            channels=channels,
            outputs=channels * self.likelihood.channels,
            size=size,
            latent=recipe.latent,
            heads=2 if recipe.stochastic else 1,
        )
        self.encoder, self.decoder = recipe.architecture.build(shape)
        self._seen: dict[str, list[Tensor]] = {"train": [], recipe.watched: []}
        self._skipped_steps = 0
        self.draws = recipe.objective.k if isinstance(recipe.objective, Iwae) else 1
        self._begin_step: Callable[[], None] = lambda: None
        self._commit: str | None = None
        # Halves the time of a convolution on a CPU, with the same weights bit for bit.
        self.to(memory_format=torch.channels_last)
        for layer in self.decoder.modules():
            if isinstance(layer, nn.Unflatten):  # else its blocks would add tensors of two memory layouts
                layer.register_forward_hook(_channels_last)

    @property
    def term_names(self) -> list[str]:
        """Names of the terms logged for each split, in nats per image; the last is the loss without options."""
        names = ["reconstruction", "kl", "negative_elbo"]
        return [*names, "negative_iwae"] if isinstance(self.recipe.objective, Iwae) else names

    def compile_nets(self) -> None:
        """Compile both nets with torch.compile, once per batch size; on a GPU, into CUDA graphs."""
        for net in (self.encoder, self.decoder):
            net.compile(mode="reduce-overhead", dynamic=False)
        self._begin_step = torch.compiler.cudagraph_mark_step_begin

    def terms(self, batch: ImageBatch) -> LossTerms:
        """Loss terms of a batch of uint8 images `[N, C, H, W]`."""
        self._begin_step()
        pixels = self._pixels(batch)
        heads = self.encoder(pixels)
        mean = heads[0].float()
        if not self.recipe.stochastic:
            reconstruction = -self._log_p_x(mean[None], pixels)[0]
            return LossTerms(reconstruction, torch.zeros_like(mean), None, mean[None])
        log_std = heads[1].float()
        eps = self._noise(torch.randn, batch, self.draws, mean.shape[1]).transpose(0, 1)  # [k, N, d]
        latents = mean + log_std.exp() * eps  # reparameterization: Kingma & Welling 2013, section 2.4
        log_p_x = self._log_p_x(latents, pixels)
        log_weights = None
        if isinstance(self.recipe.objective, Iwae):
            log_weights = importance_weights(log_p_x, latents, mean.detach(), log_std.detach())
        return LossTerms(-log_p_x.mean(dim=0), kl_divergence(mean, log_std), log_weights, latents)

    def training_step(self, batch: ImageBatch, _: int) -> Tensor:
        """Return the loss `[]` of a batch. Lightning runs the optimizer step."""
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = self.learning_rate()
        terms = self.terms(batch)
        self._keep_terms("train", terms)
        return self.loss(terms)

    def loss(self, terms: LossTerms) -> Tensor:
        """The loss `[]` that the objective minimizes: a mean over the batch."""
        objective = self.recipe.objective
        if terms.log_weights is not None:
            return dreg_loss(terms.log_weights, terms.latents).mean()
        reconstruction = terms.reconstruction.mean()
        if not isinstance(objective, Elbo):
            return reconstruction
        return reconstruction + self.kl_weight(objective) * free_bits(terms.kl, objective.free_bits)

    def validation_step(self, batch: ImageBatch, _: int) -> None:
        self._keep_terms(self.recipe.watched, self.terms(batch))

    def on_validation_epoch_end(self) -> None:
        # Not in on_train_epoch_end: callbacks that read these values run before it.
        self._log_means("train")
        self._log_means(self.recipe.watched)
        self.log("train/skipped_steps", float(self._skipped_steps))
        if self._skipped_steps >= self.steps_per_epoch:
            raise RecipeError(
                "every step of an epoch was skipped, so the net no longer learns: see training.gradient_skip"
                " and training.learning_rate"
            )

    def kl_weight(self, objective: Elbo) -> float:
        """Weight of the KL term at this step: rises linearly to beta over the warm-up."""
        steps = objective.kl_warmup_epochs * self.steps_per_epoch
        return objective.beta * (min(1.0, (self.global_step + 1) / steps) if steps else 1.0)

    def learning_rate(self) -> float:
        """Learning rate of this step: rises linearly over the warm-up, then follows the schedule."""
        training, step = self.recipe.training, self.global_step
        warmup = training.learning_rate_warmup_steps
        factor = min(1.0, (step + 1) / warmup) if warmup else 1.0
        if training.schedule == "cosine":
            factor *= 0.5 * (1 + math.cos(math.pi * step / self.trainer.estimated_stepping_batches))
        return training.learning_rate * factor

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return int(self.trainer.num_training_batches)

    def on_train_epoch_start(self) -> None:
        # Every epoch has its own seed, so that a run resumed after an epoch gives the same numbers.
        self._seed(self.current_epoch)
        batches = self.trainer.train_dataloader
        assert isinstance(batches, ImageBatches)
        batches.set_epoch(self.current_epoch)
        self._skipped_steps = 0

    def on_validation_epoch_start(self) -> None:
        self._seed(VALIDATION_EPOCH)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradient, or drop it: without gradients the optimizer changes neither weights nor its state."""
        training = self.recipe.training
        norm = get_total_norm([weight.grad for weight in self.parameters() if weight.grad is not None])
        length = norm.item()
        skipped = not math.isfinite(length) or length > (training.gradient_skip or math.inf)
        if skipped:
            optimizer.zero_grad()
        elif training.gradient_clip is not None and length > training.gradient_clip:
            clip_grads_with_norm_(self.parameters(), training.gradient_clip, norm)
        self._skipped_steps += int(skipped)

    def configure_optimizers(self) -> Optimizer:
        training, weights = self.recipe.training, self.parameters()
        fused = training.precision != "16-mixed"  # a fused optimizer would unscale gradients after they are clipped
        if training.optimizer == "adamax":
            return torch.optim.Adamax(weights, lr=training.learning_rate)
        if training.weight_decay is not None:
            decay = training.weight_decay
            return torch.optim.AdamW(weights, lr=training.learning_rate, weight_decay=decay, fused=fused)
        return torch.optim.Adam(weights, lr=training.learning_rate, fused=fused)

    def on_fit_start(self) -> None:
        self._commit = current_commit()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint |= {"recipe": self.recipe.model_dump(mode="json"), "commit": self._commit, "format": FORMAT}

    def _pixels(self, batch: ImageBatch) -> Tensor:
        """Pixels `[N, C, H, W]` in [0, 1], augmented in training, and binarized if binarization is dynamic."""
        images = batch.images
        if self.training:
            images = augment(images, self.recipe.augmentation, partial(self._noise, torch.rand, batch))
        pixels = images.float().div_(255)
        if self.recipe.binarization == "dynamic":
            pixels = self._noise(torch.rand, batch, *pixels.shape[1:]).lt_(pixels)  # in place: one pass over memory
        return pixels.contiguous(memory_format=torch.channels_last)

    def _log_p_x(self, latents: Tensor, pixels: Tensor) -> Tensor:
        """log p(x|z) `[k, N]` of latents `[k, N, d]`."""
        output = self.decoder(latents.flatten(0, 1)).float()
        parameters = self.likelihood.parameters_of(output.unflatten(0, latents.shape[:2]))
        return self.likelihood.log_prob(parameters, pixels)

    def _noise(self, kind: Callable[..., Tensor], batch: ImageBatch, *shape: int) -> Tensor:
        """This process's rows `[N, *shape]` of random numbers drawn for the whole batch."""
        noise = kind(batch.total, *shape, generator=self._generator, device=self.device)
        return noise[batch.start : batch.start + len(batch.images)]

    def _seed(self, epoch: int) -> None:
        # Mixed into 32 bits: torch's CPU generator ignores higher bits of a seed.
        shared, own = np.random.SeedSequence([self.recipe.seed, epoch]).generate_state(2)
        self._generator = torch.Generator(self.device).manual_seed(int(shared))
        torch.manual_seed(int(own) + self.global_rank)  # for dropout

    def _keep_terms(self, split: str, terms: LossTerms) -> None:
        """Keep a batch's terms for the log of the epoch. Logging them at every step would slow down a small net."""
        values = [terms.reconstruction.detach(), terms.kl.detach().sum(dim=1)]
        if terms.log_weights is not None:
            values.append(-iwae(terms.log_weights.detach()))
        self._seen[split].append(torch.stack(values))

    def _log_means(self, split: str) -> None:
        """Log the means over a split's images, of all processes. Images with a term that is not finite are left out."""
        values = torch.cat(self._seen[split], dim=1).double()  # [terms, images]
        self._seen[split] = []
        finite = values.isfinite().all(dim=0)
        sums = torch.cat([values.where(finite, 0.0).sum(dim=1), finite.sum(dim=0, keepdim=True)])
        sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        reconstruction, kl, *bound = (sums[:-1] / sums[-1]).tolist()
        for name, value in zip(self.term_names, (reconstruction, kl, reconstruction + kl, *bound), strict=True):
            self.log(f"{split}/{name}", value)


def current_commit() -> str | None:
    """The repository's commit, with the suffix `-dirty` if tracked files are modified; None outside a repository."""
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        return subprocess.run(  # noqa: S603 (a constant)
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _channels_last(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.contiguous(memory_format=torch.channels_last)
