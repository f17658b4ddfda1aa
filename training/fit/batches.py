"""Batches: the images as one uint8 tensor on the device, indexed by batch."""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Pixels = NDArray[np.uint8]


CHUNK = 8
"""Batches that Lightning hands over at a time: what it does around a call takes a twentieth of a small net's step."""


class Batch(NamedTuple):
    """One process's share of a batch."""

    images: Tensor
    """uint8 `[N, C, H, W]`."""
    start: int
    """Where they begin in the batch of all processes,"""
    total: int
    """and how many that has."""


class Batches:
    """Batches of one uint8 tensor `[N, C, H, W]`, gathered on its own device.

    With `seed` each epoch has its own order, a function of seed and epoch alone, and every process gets equally many
    rows of each batch, for which up to `world_size - 1` images of the epoch's last batch are left out. Without, the
    order is the tensor's and nothing is left out.
    """

    def __init__(
        self, images: Tensor, batch_size: int, *, seed: int | None = None, rank: int = 0, world_size: int = 1
    ) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.rank, self.world_size, self.epoch = rank, world_size, 0
        self.count = len(images) // world_size * world_size if seed is not None else len(images)

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch from the next pass on."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        if self.seed is None:
            order = np.arange(self.count)
        else:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.images))[: self.count]
        indices = torch.from_numpy(order).to(self.images.device)
        for first in range(0, self.count, self.batch_size):
            total = min(self.batch_size, self.count - first)
            start, stop = (total * rank // self.world_size for rank in (self.rank, self.rank + 1))
            chosen = indices[first + start : first + stop]
            yield Batch(self.images.index_select(0, chosen), start, total)  # a third of the time of indexing


class Chunks:
    """Batches in lists of `size`, the last of which may be shorter."""

    def __init__(self, batches: Batches, size: int) -> None:
        self.batches, self.size = batches, size

    def __len__(self) -> int:
        return math.ceil(len(self.batches) / self.size)

    def __iter__(self) -> Iterator[list[Batch]]:
        batches = iter(self.batches)
        while chunk := list(islice(batches, self.size)):
            yield chunk


class ImageData(L.LightningDataModule):
    """The splits as uint8 tensors on the trainer's device: chunks of batches to train on, batches to validate on."""

    def __init__(self, train: Pixels, watched: Pixels, *, batch_size: int, seed: int, chunk: int = CHUNK) -> None:
        super().__init__()
        self.train, self.watched, self.batch_size, self.seed, self.chunk = train, watched, batch_size, seed, chunk

    def train_dataloader(self) -> Chunks:
        return Chunks(self._batches(self.train, seed=self.seed), self.chunk)

    def val_dataloader(self) -> Batches:
        return self._batches(self.watched, seed=None)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # it is gathered there; Lightning's own way looks into every batch for what to move

    def _batches(self, pixels: Pixels, *, seed: int | None) -> Batches:
        assert self.trainer is not None
        images = torch.from_numpy(pixels.copy()).to(self.trainer.strategy.root_device)
        world = {"rank": self.trainer.global_rank, "world_size": self.trainer.world_size}
        return Batches(images, self.batch_size, seed=seed, **world)
