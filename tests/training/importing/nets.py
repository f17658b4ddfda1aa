"""Torch models as people write them, tiny: 8 x 8 grey images."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal


class Vae(nn.Module):
    """Two heads, flat images inside, a sigmoid at the end."""

    def __init__(self, latent: int = 3, hidden: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(1), nn.Linear(64, hidden), nn.Tanh())
        self.mean, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.back = nn.Sequential(nn.Linear(latent, hidden), nn.Tanh(), nn.Linear(hidden, 64), nn.Sigmoid())

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.body(x)
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, z: Tensor) -> Tensor:
        return self.back(z).unflatten(1, (1, 8, 8))


class Named(Vae):
    """A dictionary, with a None in it."""

    def encode(self, x: Tensor) -> Any:
        mean, log_variance = super().encode(x)
        return {"mu": mean, "logvar": log_variance, "skips": None}


class Distribution(Vae):
    """A distribution of torch."""

    def encode(self, x: Tensor) -> Any:
        mean, log_variance = super().encode(x)
        return Independent(Normal(mean, torch.exp(0.5 * log_variance), validate_args=False), 1, validate_args=False)


class Drawing(Vae):
    """A draw, as its forward pass has it."""

    def encode(self, x: Tensor) -> Any:
        mean, log_variance = super().encode(x)
        return mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)


class Flat(Vae):
    """Flat images, in and out."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert x.ndim == 2
        return super().encode(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.back(z)


class Parts(nn.Module):
    """Parts of names of its own, and no variance."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Tanh(), nn.Conv2d(4, 2, 3, 2, 1))
        self.up = nn.Sequential(nn.ConvTranspose2d(2, 4, 4, 2, 1), nn.Tanh(), nn.ConvTranspose2d(4, 1, 4, 2, 1))


class Encoder(nn.Module):
    """One half by itself."""

    def __init__(self, model: Vae) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model.encode(x)


class Decoder(nn.Module):
    """The other."""

    def __init__(self, model: Vae) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor) -> Tensor:
        return self.model.decode(z)


def number() -> int:
    """No module."""
    return 1
