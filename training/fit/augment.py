"""Training images changed a little, anew whenever they are seen, so that a net cannot learn them by heart."""

from collections.abc import Callable

import torch
from torch import Tensor

from training.recipe import Augmentation


def augment(images: Tensor, options: Augmentation, uniform: Callable[..., Tensor]) -> Tensor:
    """Images `[N, C, H, W]`, mirrored and moved as `options` say; `uniform(*shape)` draws `[N, *shape]` from [0, 1)."""
    if not options.flip and not options.shift:
        return images
    rows = torch.arange(images.shape[2], device=images.device).expand(len(images), -1)
    columns = torch.arange(images.shape[3], device=images.device).expand(len(images), -1)
    if options.flip:
        columns = torch.where(uniform(1) < 0.5, columns, columns.flip(1))
    if options.shift:
        moves = (uniform(2) * (2 * options.shift + 1)).long() - options.shift  # [N, 2], each in -shift..shift
        rows = (rows + moves[:, :1]).clamp(0, images.shape[2] - 1)
        columns = (columns + moves[:, 1:]).clamp(0, images.shape[3] - 1)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]  # [N, H, W, C]
    return moved.permute(0, 3, 1, 2)
