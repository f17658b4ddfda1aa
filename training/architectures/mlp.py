"""A residual multilayer perceptron: layers of `width` units, and `depth` blocks of two layers per net.

    python -m training train mnist-2d

Blocks are pre-normalized: x + linear(silu(linear(norm(x)))). The second layer starts at zero, so that every block
starts as the identity.
"""

from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from training.architectures.shape import NetShape


class MlpOptions(BaseModel):
    """Options of the residual multilayer perceptron."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
    name: Literal["mlp"]
    width: Annotated[int, Field(gt=0)] = 512
    """Units of each layer between image and latent."""
    depth: Annotated[int, Field(ge=0)] = 2
    """Residual blocks in the encoder, and as many in the decoder."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of units dropped in training, in the encoder only: inside its blocks and before its outputs."""

    def build(self, shape: NetShape) -> tuple[nn.Module, nn.Module]:
        """Make the encoder and the decoder, freshly initialized."""
        return MlpEncoder(self, shape), MlpDecoder(self, shape)


class MlpBlock(nn.Module):
    """x + linear(dropout(silu(linear(norm(x))))), `[N, width]`."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.silu(self.first(self.norm(x)))
        return x + torch.as_tensor(self.second(self.dropout(hidden)))


class MlpEncoder(nn.Module):
    """Images `[N, C, H, W]` in [0, 1] -> a tuple of heads `[N, latent]`."""

    def __init__(self, options: MlpOptions, shape: NetShape) -> None:
        super().__init__()
        width, dropout = options.width, options.dropout
        self.body = nn.Sequential(
            nn.Flatten(1),
            nn.Linear(shape.channels * shape.size**2, width),
            *(MlpBlock(width, dropout) for _ in range(options.depth)),
            nn.SiLU(),
            nn.Dropout(dropout),
        )
        self.heads = nn.ModuleList(nn.Linear(width, shape.latent) for _ in range(shape.heads))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        hidden = self.body(2 * images - 1)  # [N, width]
        return tuple(head(hidden) for head in self.heads)


class MlpDecoder(nn.Module):
    """Latents `[N, latent]` -> the likelihood's parameters `[N, outputs, H, W]`."""

    def __init__(self, options: MlpOptions, shape: NetShape) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(shape.latent, options.width),
            *(MlpBlock(options.width, 0.0) for _ in range(options.depth)),
            nn.SiLU(),
            nn.Linear(options.width, shape.outputs * shape.size**2),
            nn.Unflatten(1, (shape.outputs, shape.size, shape.size)),
        )

    def forward(self, latents: Tensor) -> Tensor:
        output: Tensor = self.body(latents)
        return output
