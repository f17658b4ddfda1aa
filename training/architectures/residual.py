"""A residual convolutional net, sized by `width`, `depth` and `stages`.

    python -m training train mnist

Residual blocks are pre-activated, with SiLU and no normalization. A block's second convolution starts at zero, so that
every block starts as the identity. Upsampling is a convolution followed by PixelShuffle (DepthToSpace in ONNX), which
has no checkerboard artifacts and runs on every execution provider.
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from training.architectures.shape import NetShape
from training.errors import RecipeError


class ResidualOptions(BaseModel):
    """Options of the residual convolutional net."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
    name: Literal["residual"]
    width: Annotated[int, Field(gt=0, multiple_of=2)] = 32
    """Channels of the first stage. They double at each further stage."""
    max_width: Annotated[int, Field(gt=0, multiple_of=2)] | None = None
    """Maximum number of channels of a stage."""
    depth: Annotated[int, Field(gt=0)] = 1
    """Residual blocks per stage."""
    stages: Annotated[int, Field(gt=0, le=6)] = 2
    """Stages of residual blocks. The encoder halves the sides before each stage but the first, and the decoder doubles
    them after it. The image's sides must be multiples of patch * 2^(stages - 1) pixels."""
    patch: Literal[2, 4] = 2
    """Pixels of the image per side of a pixel of the first stage. Patches of 4 are faster than of 2 at equal width."""
    hidden: Annotated[int, Field(gt=0)] = 256
    """Units of the dense layer between convolutions and latent."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of units dropped in training, in the encoder only: inside its blocks and before its outputs."""

    def build(self, shape: NetShape) -> tuple[nn.Module, nn.Module]:
        """Make the encoder and the decoder, freshly initialized.

        Raises:
            RecipeError: the image's sides are not multiples of patch * 2^(stages - 1), or the first stage has a number
                of channels that cannot be shared out among the pixels of a patch.
        """
        if 2 * self.width % self.patch**2:
            raise RecipeError(
                f"architecture.width must be a multiple of {self.patch**2 // 2} with patches of {self.patch}"
            )
        if shape.size % (self.patch << (self.stages - 1)):
            raise RecipeError(f"architecture.stages = {self.stages} is too many for sides of {shape.size} pixels")
        return ResidualEncoder(self, shape), ResidualDecoder(self, shape)

    def channels(self, stage: int) -> int:
        """Channels of a stage, counted from 0 at the image."""
        channels = self.width << stage
        return channels if self.max_width is None else min(channels, self.max_width)


class ResidualBlock(nn.Module):
    """x + conv(dropout(silu(conv(silu(x))))), channels and size unchanged."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(torch.as_tensor(self.second.bias))

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.silu(self.first(functional.silu(x)))
        return x + torch.as_tensor(self.second(self.dropout(hidden)))


def blocks(channels: int, depth: int, dropout: float = 0.0) -> nn.Sequential:
    """`depth` residual blocks and an activation; channels and size unchanged."""
    return nn.Sequential(*(ResidualBlock(channels, dropout) for _ in range(depth)), nn.SiLU())


def top_shape(options: ResidualOptions, size: int) -> tuple[int, int, int]:
    """Channels, height and width after the last stage of the encoder and before the first of the decoder."""
    side = size // options.patch >> (options.stages - 1)
    return options.channels(options.stages - 1), side, side


def _halve(stage: int, options: ResidualOptions) -> tuple[nn.Module, ...]:
    """From the stage before to this one: `[N, C, H, W]` -> `[N, C', H / 2, W / 2]`."""
    channels = options.channels(stage)
    first = nn.Conv2d(options.channels(stage - 1), channels, 3, stride=2, padding=1)
    return first, blocks(channels, options.depth, options.dropout)


def _double(stage: int, options: ResidualOptions) -> tuple[nn.Module, ...]:
    """From this stage to the one before: `[N, C', H / 2, W / 2]` -> `[N, C, H, W]`."""
    channels = options.channels(stage)
    wider = nn.Conv2d(channels, 4 * options.channels(stage - 1), 1)
    return blocks(channels, options.depth), wider, nn.PixelShuffle(2)


class ResidualEncoder(nn.Module):
    """Images `[N, C, H, W]` in [0, 1] -> a tuple of heads `[N, latent]`."""

    def __init__(self, options: ResidualOptions, shape: NetShape) -> None:
        super().__init__()
        width, patch, top = options.channels(0), options.patch, top_shape(options, shape.size)
        self.body = nn.Sequential(
            nn.Conv2d(shape.channels, width, 2 * patch + 1, stride=patch, padding=patch),
            blocks(width, options.depth, options.dropout),
            *(layer for stage in range(1, options.stages) for layer in _halve(stage, options)),
            nn.Flatten(1),
            nn.Linear(math.prod(top), options.hidden),
            nn.SiLU(),
            nn.Dropout(options.dropout),
        )
        self.heads = nn.ModuleList(nn.Linear(options.hidden, shape.latent) for _ in range(shape.heads))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        hidden = self.body(2 * images - 1)  # [N, hidden]
        return tuple(head(hidden) for head in self.heads)


class ResidualDecoder(nn.Module):
    """Latents `[N, latent]` -> the likelihood's parameters `[N, outputs, H, W]`."""

    def __init__(self, options: ResidualOptions, shape: NetShape) -> None:
        super().__init__()
        width, patch, top = options.channels(0), options.patch, top_shape(options, shape.size)
        self.body = nn.Sequential(
            nn.Linear(shape.latent, options.hidden),
            nn.SiLU(),
            nn.Linear(options.hidden, math.prod(top)),
            nn.Unflatten(1, top),
            *(layer for stage in range(options.stages - 1, 0, -1) for layer in _double(stage, options)),
            blocks(width, options.depth),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.PixelShuffle(patch),
            nn.SiLU(),
            nn.Conv2d(2 * width // patch**2, shape.outputs, 3, padding=1),
        )

    def forward(self, latents: Tensor) -> Tensor:
        output: Tensor = self.body(latents)
        return output
