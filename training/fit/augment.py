"""Random changes of training images, drawn anew at every use, so that a net cannot memorize the images."""

from collections.abc import Callable

import torch
from torch import Tensor

from training.recipe import Augmentation


def augment(images: Tensor, options: Augmentation, uniform: Callable[..., Tensor]) -> Tensor:
    """Mirror and shift images `[N, C, H, W]` at random. `uniform(*shape)` draws `[N, *shape]` from [0, 1)."""
    if not options.flip and not options.shift:
        return images
    rows = torch.arange(images.shape[2], device=images.device).expand(len(images), -1)
    columns = torch.arange(images.shape[3], device=images.device).expand(len(images), -1)
    if options.flip:
        columns = torch.where(uniform(1) < 0.5, columns, columns.flip(1))
    if options.shift:
        shifts = (uniform(2) * (2 * options.shift + 1)).long() - options.shift  # [N, 2], each in -shift..shift
        rows = (rows + shifts[:, :1]).clamp(0, images.shape[2] - 1)
        columns = (columns + shifts[:, 1:]).clamp(0, images.shape[3] - 1)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    changed = images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]  # [N, H, W, C]
    return changed.permute(0, 3, 1, 2)
