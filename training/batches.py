"""Batches: the images as one uint8 tensor on the device, indexed by batch."""

import math
from collections.abc import Iterator

import lightning as L
import numpy as np
import torch
from torch import Tensor

from training.data import Dataset, Split


class Batches:
    """Batches of one uint8 tensor `[N, C, H, W]`, gathered on its own device.

    With `seed` each epoch has its own order, a function of seed and epoch alone; without, the order is the tensor's.
    Of `world_size` processes each gets every `world_size`-th image of that order.
    """

    def __init__(
        self, images: Tensor, batch_size: int, *, seed: int | None = None, rank: int = 0, world_size: int = 1
    ) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.rank, self.world_size, self.epoch = rank, world_size, 0

    def __len__(self) -> int:
        return math.ceil(math.ceil(len(self.images) / self.world_size) / self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch from the next pass on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Tensor]:
        count = len(self.images)
        if self.seed is None:
            order = np.arange(count)
        else:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(count)
        order = np.resize(order, math.ceil(count / self.world_size) * self.world_size)[self.rank :: self.world_size]
        indices = torch.from_numpy(order).to(self.images.device)
        for start in range(0, len(indices), self.batch_size):
            yield self.images[indices[start : start + self.batch_size]]


class ImageData(L.LightningDataModule):
    """The splits as uint8 tensors on the trainer's device."""

    def __init__(self, dataset: Dataset, *, batch_size: int, seed: int) -> None:
        super().__init__()
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed

    def train_dataloader(self) -> Batches:
        return self._batches(self.dataset.train, seed=self.seed)

    def val_dataloader(self) -> Batches:
        return self._batches(self.dataset.test, seed=None)

    def _batches(self, split: Split, *, seed: int | None) -> Batches:
        assert self.trainer is not None
        images = torch.from_numpy(split.images.copy()).to(self.trainer.strategy.root_device)
        world = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        return Batches(images, self.batch_size, seed=seed, **world)
