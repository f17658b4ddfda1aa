"""A minimal training loop, for comparison: torchvision's digits one by one, a DataLoader, Adam.

Imports torchvision, whose compiled operators need one build of torch; see `bench.training`.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from training.architectures.shape import NetShape
from training.data import load_dataset
from training.recipe import Recipe

# With another build of torch, torchvision lacks its compiled operators, and its import fails at their registrations.
# Nothing here needs the operators: the transforms are Python.
sys.modules.setdefault("torchvision._meta_registrations", ModuleType("torchvision._meta_registrations"))

from torchvision.datasets import MNIST  # noqa: E402
from torchvision.transforms import Compose, ToTensor, v2  # noqa: E402

TRANSFORMS = {
    "ToTensor": Compose([ToTensor(), torch.bernoulli]),
    "v2": v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), torch.bernoulli]),
}
"""Transforms to pixels in [0, 1], then to 0 or 1 at random: as in most code, and in torchvision's documentation."""


class Digits(MNIST):  # type: ignore[misc]
    """torchvision's MNIST, from arrays in memory."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.uint8], transforms: str) -> None:
        self.data, self.targets = torch.from_numpy(images.copy()), torch.from_numpy(labels.copy()).long()
        self.transform, self.target_transform = TRANSFORMS[transforms], None


def plain_steps(recipe: Recipe, data_dir: Path, transforms: str, workers: int) -> Iterator[None]:
    """Train the recipe's net with its batch size and learning rate; yields after each step, without end.

    There are no logs, no clipping, no schedule and no average of the weights.
    """
    split = load_dataset(recipe.data, data_dir).train
    assert split.labels is not None
    digits = Digits(split.images[:, 0], split.labels, transforms)
    shape = NetShape(channels=1, outputs=1, size=28, latent=recipe.latent, heads=2)
    encoder, decoder = recipe.architecture.build(shape)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=recipe.training.learning_rate)
    loader: DataLoader[tuple[Tensor, int]] = DataLoader(
        digits,
        batch_size=recipe.training.batch_size,
        shuffle=True,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,  # as in a script; this process was spawned
    )
    total_loss = 0.0
    while True:
        for images, _ in loader:
            mean, log_var = encoder(images)
            latents = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
            reconstruction = functional.binary_cross_entropy_with_logits(decoder(latents), images, reduction="sum")
            kl = -0.5 * torch.sum(1 + log_var - mean.pow(2) - log_var.exp())
            loss = (reconstruction + kl) / len(images)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total_loss += loss.item()
            yield
