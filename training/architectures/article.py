"""The article's convolutional net: two strided convolutions of 32 and 64 channels, a dense layer of 16, the heads.

    python -m training train mnist-2d

Weights are initialized as in the article's framework: Glorot's uniform distribution, and zero for biases. (torch's
default left one of the two latent dimensions unused for at least four epochs.)
"""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from training.architectures.shape import NetShape


class ArticleOptions(BaseModel):
    """The article's net has no options."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
    name: Literal["article"]

    def build(self, shape: NetShape) -> tuple[nn.Module, nn.Module]:
        """Make the encoder and the decoder, freshly initialized."""
        return ArticleEncoder(self, shape), ArticleDecoder(self, shape)


def _glorot(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(torch.as_tensor(layer.bias))


class ArticleEncoder(nn.Module):
    """Images `[N, C, H, W]` in [0, 1] -> a tuple of heads `[N, latent]`."""

    def __init__(self, options: ArticleOptions, shape: NetShape) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(shape.channels, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(1),
            nn.Linear(64 * (shape.size // 4) ** 2, 16),
            nn.ReLU(),
        )
        self.heads = nn.ModuleList(nn.Linear(16, shape.latent) for _ in range(shape.heads))
        self.apply(_glorot)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        hidden = self.body(images)  # [N, 16]
        return tuple(head(hidden) for head in self.heads)


class ArticleDecoder(nn.Module):
    """Latents `[N, latent]` -> the likelihood's parameters `[N, outputs, H, W]`."""

    def __init__(self, options: ArticleOptions, shape: NetShape) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(shape.latent, 64 * (shape.size // 4) ** 2),
            nn.ReLU(),
            nn.Unflatten(1, (64, shape.size // 4, shape.size // 4)),
            nn.ConvTranspose2d(64, 64, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.Conv2d(32, shape.outputs, 3, padding=1),
        )
        self.apply(_glorot)

    def forward(self, latents: Tensor) -> Tensor:
        output: Tensor = self.body(latents)
        return output
