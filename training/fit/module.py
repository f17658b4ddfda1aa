"""The LightningModule: one training step that fits on a screen. Loop, devices and checkpoints are Lightning's."""

import math
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_
from torch.optim import Optimizer

from training.architectures import build
from training.errors import RecipeError
from training.fit.adam import FusedAdam
from training.fit.augment import augment
from training.fit.batches import Batch, Chunks
from training.fit.likelihood import make_likelihood
from training.fit.objective import dreg_loss, free_bits, importance_weights, iwae, kl_divergence
from training.recipe import Elbo, Iwae, Recipe

VALIDATION_EPOCH = 2**31
"""Seeds the draws of validation, the same in every epoch, so that epochs compare."""


class Terms(NamedTuple):
    """What a batch of N images gives, in nats."""

    reconstruction: Tensor
    """`[N]`: -log p(x|z), averaged over the draws."""
    kl: Tensor
    """`[N, d]`: KL of each latent dimension; zero without a posterior."""
    log_weights: Tensor | None
    """`[k, N]`: log p(x, z) / q(z|x) of each draw, under IWAE."""
    latents: Tensor
    """`[k, N, d]`: the draws."""


class VaeModule(L.LightningModule):
    """Encoder and decoder of `recipe` for `channels` x `size` x `size` images, and how they are trained.

    Every random number is drawn for the whole batch of all processes, of which each takes its rows: however many there
    are, an image gets the same pixels and the same draws.

    Raises:
        RecipeError: the architecture cannot take images of this size.
    """

    def __init__(self, recipe: Recipe, *, channels: int, size: int) -> None:
        super().__init__()
        self.automatic_optimization = False  # `training_step` takes several
        stages = getattr(recipe.architecture, "stages", 0)
        if size % 2**stages:
            raise RecipeError(f"architecture.stages = {stages} cannot halve {size} pixels a side so often")
        self.recipe = recipe
        self.likelihood = make_likelihood(recipe.likelihood)
        self.encoder, self.decoder = build(
            recipe.architecture,
            channels=channels,
            outputs=channels * self.likelihood.channels,
            size=size,
            latent=recipe.latent,
            heads=2 if recipe.stochastic else 1,
        )
        self._seen: dict[str, list[Tensor]] = {"train": [], recipe.watched: []}
        self._skipped_steps = 0
        self._weights = [weight for weight in self.parameters() if weight.requires_grad]  # to walk the tree once
        self.draws = recipe.objective.k if isinstance(recipe.objective, Iwae) else 1
        self._begin_step: Callable[[], None] = lambda: None
        # Half the time of a convolution on a CPU; bit for bit the same weights.
        self.to(memory_format=torch.channels_last)
        for layer in self.decoder.modules():
            if isinstance(layer, nn.Unflatten):  # or its blocks would add one layout to the other
                layer.register_forward_hook(_channels_last)

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this around every hook, 47 times a step, and torch's own way is to look for weights in it.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    @property
    def term_names(self) -> list[str]:
        """What is logged of each split, in nats an image; the last is what is minimised, but for beta and free bits."""
        names = ["reconstruction", "kl", "negative_elbo"]
        return [*names, "negative_iwae"] if isinstance(self.recipe.objective, Iwae) else names

    def compile_nets(self) -> None:
        """Fuse the operations of both halves for each size of batch, on a GPU into CUDA graphs; the weights stay."""
        for net in (self.encoder, self.decoder):
            net.compile(mode="reduce-overhead", dynamic=False)
        self._begin_step = torch.compiler.cudagraph_mark_step_begin

    def terms(self, batch: Batch) -> Terms:
        """The terms of a batch of uint8 images `[N, C, H, W]`."""
        self._begin_step()
        pixels = self._pixels(batch)
        heads = self.encoder(pixels)
        mean = heads[0].float()
        if not self.recipe.stochastic:
            reconstruction = -self._log_p_x(mean[None], pixels)[0]
            return Terms(reconstruction, torch.zeros_like(mean), None, mean[None])
        log_std = heads[1].float()
        eps = self._noise(torch.randn, batch, self.draws, mean.shape[1]).transpose(0, 1)  # [k, N, d]
        latents = mean + log_std.exp() * eps  # the reparameterisation trick
        log_p_x = self._log_p_x(latents, pixels)
        log_weights = None
        if isinstance(self.recipe.objective, Iwae):
            log_weights = importance_weights(log_p_x, latents, mean.detach(), log_std.detach())
        return Terms(-log_p_x.mean(dim=0), kl_divergence(mean, log_std), log_weights, latents)

    def training_step(self, batches: list[Batch], _: int) -> Tensor:
        """A step for each batch; returns the last one's loss."""
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        for batch in batches:
            loss = self._step(batch, optimizer)
        return loss.detach()

    def _step(self, batch: Batch, optimizer: LightningOptimizer) -> Tensor:
        for group in optimizer.param_groups:  # a scheduler object takes longer than this
            group["lr"] = self.learning_rate()
        self.drop_gradient()
        terms = self.terms(batch)
        self._note("train", terms)
        loss = self.loss(terms)
        self.manual_backward(loss)
        optimizer.step()
        return loss

    def loss(self, terms: Terms) -> Tensor:
        """What is minimised, `[]`."""
        objective = self.recipe.objective
        if terms.log_weights is not None:
            return dreg_loss(terms.log_weights, terms.latents).mean()
        reconstruction = terms.reconstruction.mean()
        if not isinstance(objective, Elbo):
            return reconstruction
        return reconstruction + self.kl_weight(objective) * free_bits(terms.kl, objective.free_bits)

    def validation_step(self, batch: Batch, _: int) -> None:
        self._note(self.recipe.watched, self.terms(batch))

    def on_validation_epoch_end(self) -> None:
        # Here, at the epoch's end, and not in on_train_epoch_end, which comes after the callbacks that want them.
        self._report("train")
        self._report(self.recipe.watched)
        self.log("train/skipped_steps", float(self._skipped_steps))
        if self._skipped_steps >= self.steps_per_epoch:
            raise RecipeError(
                "every step of an epoch was skipped, and nothing is learnt any more: see training.gradient_skip"
                " and training.learning_rate"
            )

    def kl_weight(self, objective: Elbo) -> float:
        """Weight of the KL term at this step: rises linearly to beta over the warm-up."""
        steps = objective.kl_warmup_epochs * self.steps_per_epoch
        return objective.beta * (min(1.0, (self.global_step + 1) / steps) if steps else 1.0)

    def learning_rate(self) -> float:
        """Of this step: rises linearly over its warm-up, and falls along the schedule."""
        training, step = self.recipe.training, self.global_step
        warmup = training.learning_rate_warmup_steps
        factor = min(1.0, (step + 1) / warmup) if warmup else 1.0
        if training.schedule == "cosine":
            factor *= 0.5 * (1 + math.cos(math.pi * step / self.total_steps))
        return training.learning_rate * factor

    @cached_property
    def steps_per_epoch(self) -> int:
        return len(self._chunks.batches)

    @property
    def total_steps(self) -> int:
        return self.recipe.training.epochs * self.steps_per_epoch

    def on_train_epoch_start(self) -> None:
        # Every epoch starts from its own seed, so that a run resumed at an epoch's end goes on to the same numbers.
        self._seed(self.current_epoch)
        self._chunks.batches.set_epoch(self.current_epoch)
        self._skipped_steps = 0

    def on_validation_epoch_start(self) -> None:
        self._seed(VALIDATION_EPOCH)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clip the gradient, or drop it: without one the optimizer changes neither weights nor its own state."""
        training = self.recipe.training
        gradients = [weight.grad for weight in self._weights if weight.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        length = norm.item()
        skipped = not math.isfinite(length) or length > (training.gradient_skip or math.inf)
        if skipped:
            self.drop_gradient()
        elif training.gradient_clip is not None and length > training.gradient_clip:
            clip_grads_with_norm_(self._weights, training.gradient_clip, norm)
        self._skipped_steps += int(skipped)

    def drop_gradient(self) -> None:
        """What an optimizer's zero_grad does, in a sixth of the time."""
        for weight in self._weights:
            weight.grad = None

    def configure_optimizers(self) -> Optimizer:
        training = self.recipe.training
        weights, rate = self._weights, training.learning_rate
        if training.optimizer == "adamax":
            return torch.optim.Adamax(weights, lr=rate)
        if training.precision != "16-mixed":
            return FusedAdam(weights, lr=rate, weight_decay=training.weight_decay)
        # Fused, it would unscale gradients itself, after they are clipped.
        if training.weight_decay is not None:
            return torch.optim.AdamW(weights, lr=rate, weight_decay=training.weight_decay)
        return torch.optim.Adam(weights, lr=rate)

    @property
    def _chunks(self) -> Chunks:
        chunks = self.trainer.train_dataloader
        assert isinstance(chunks, Chunks)
        return chunks

    def _pixels(self, batch: Batch) -> Tensor:
        """Pixels `[N, C, H, W]` in [0, 1], binarized where they are to be."""
        images = batch.images
        if self.training:
            images = augment(images, self.recipe.augmentation, partial(self._noise, torch.rand, batch))
        pixels = images.float().div_(255)
        if self.recipe.binarization == "dynamic":
            pixels = self._noise(torch.rand, batch, *pixels.shape[1:]).lt_(pixels)  # in place: one pass, not two
        return pixels.contiguous(memory_format=torch.channels_last)

    def _log_p_x(self, latents: Tensor, pixels: Tensor) -> Tensor:
        """log p(x|z) `[k, N]` of latents `[k, N, d]`."""
        output = self.decoder(latents.flatten(0, 1)).float()
        parameters = self.likelihood.parameters_of(output.unflatten(0, latents.shape[:2]))
        return self.likelihood.log_prob(parameters, pixels)

    def _noise(self, kind: Callable[..., Tensor], batch: Batch, *shape: int) -> Tensor:
        """This process's rows `[N, *shape]` of random numbers for the whole batch."""
        noise = kind(batch.total, *shape, generator=self._generator, device=self.device)
        return noise[batch.start : batch.start + len(batch.images)]

    def _seed(self, epoch: int) -> None:
        # Mixed into 32 bits: of a longer seed torch's CPU generator drops what stands above them.
        shared, own = np.random.SeedSequence([self.recipe.seed, epoch]).generate_state(2)
        self._generator = torch.Generator(self.device).manual_seed(int(shared))
        torch.manual_seed(int(own) + self.global_rank)  # what layers draw for themselves: dropout

    def _note(self, split: str, terms: Terms) -> None:
        """Keep a batch's terms for the log: to sum them every step, or to log them, would cost a small net dearly."""
        values = [terms.reconstruction.detach(), terms.kl.detach().sum(dim=1)]
        if terms.log_weights is not None:
            values.append(-iwae(terms.log_weights.detach()))
        self._seen[split].append(torch.stack(values))

    def _report(self, split: str) -> None:
        """Log the means over the images of a split, of all processes."""
        values = torch.cat(self._seen[split], dim=1).double()  # [terms, images]
        self._seen[split] = []
        finite = values.isfinite().all(dim=0)  # an image that is not counts for nothing
        sums = torch.cat([values.where(finite, 0.0).sum(dim=1), finite.sum(dim=0, keepdim=True)])
        sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        reconstruction, kl, *bound = (sums[:-1] / sums[-1]).tolist()
        for name, value in zip(self.term_names, (reconstruction, kl, reconstruction + kl, *bound), strict=True):
            self.log(f"{split}/{name}", value)


def _channels_last(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.contiguous(memory_format=torch.channels_last)
