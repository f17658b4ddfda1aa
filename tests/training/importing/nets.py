"""Torch models as people write them, tiny: 8 x 8 grey images."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal


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


class Whole(Vae):
    """A forward pass, which draws the latent in one of the usual ways."""

    def __init__(self, draw: str = "randn_like", latent: int = 3) -> None:
        super().__init__(latent)
        self.draw = draw

    def forward(self, x: Tensor) -> Any:
        mean, log_variance = self.encode(x)
        std = torch.exp(0.5 * log_variance)
        z = {
            "randn_like": lambda: mean + std * torch.randn_like(std),
            "randn": lambda: mean + std * torch.randn(len(x), mean.shape[1]),
            "normal_": lambda: mean + std * torch.empty_like(std).normal_(),
            "normal": lambda: torch.normal(mean, std),
            "normal of one mean": lambda: mean + torch.normal(0.0, std),
            "normal of a broadcast mean": lambda: mean + torch.normal(torch.zeros(1), std).view_as(mean),
            "normal of a size": lambda: mean + std * torch.normal(0.0, 1.0, mean.shape),
            "rsample": lambda: Normal(mean, std).rsample(),
            "uniform": lambda: mean + std * torch.rand_like(std),
            "none": lambda: mean,
        }[self.draw]()
        return self.finished(z, x), x, mean, log_variance

    def finished(self, z: Tensor, x: Tensor) -> Tensor:
        return self.decode(z)


class Quantized(Whole):
    """The nearest of a few vectors is decoded."""

    def __init__(self) -> None:
        super().__init__("none")
        self.codebook = nn.Parameter(torch.linspace(-4, 4, 8)[:, None].repeat(1, 3))

    def finished(self, z: Tensor, x: Tensor) -> Tensor:
        return self.decode(self.codebook[torch.cdist(z, self.codebook).argmin(dim=1)])


class Flowing(Whole):
    """A step of a flow between both halves."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = nn.Linear(3, 3)

    def finished(self, z: Tensor, x: Tensor) -> Tensor:
        return self.decode(z + torch.tanh(self.flow(z)))


class Scaled(Whole):
    """Latents are normalized between both halves; no name says so."""

    def finished(self, z: Tensor, x: Tensor) -> Tensor:
        return self.decode(z / 3)


class Raw(Whole):
    """Its forward pass gives logits, its decode method probabilities."""

    def finished(self, z: Tensor, x: Tensor) -> Tensor:
        return self.back[:-1](z).unflatten(1, (1, 8, 8))


class Scoring(Whole):
    """Its forward pass also gives one loss for each image."""

    def forward(self, x: Tensor) -> Any:
        decoded, *_ = super().forward(x)
        return decoded, (decoded - x).square().flatten(1).sum(1), (decoded - x).square().mean()


class Likely(Whole):
    """Its forward pass also gives the likelihood of the images, by a distribution that checks them."""

    def forward(self, x: Tensor) -> Any:
        decoded, *_ = super().forward(x)
        return decoded, Bernoulli(decoded).log_prob(x).sum()


class Strict(Whole):
    """Its forward pass fails for all but black images."""

    def forward(self, x: Tensor) -> Any:
        if x.any():
            raise ValueError("all black, please")
        return super().forward(x)


class Signed(Whole):
    """Its forward pass takes and returns pixels in [-1, 1], and encoder and decoder [0, 1]."""

    def forward(self, x: Tensor) -> Any:
        return self.decode(self.encode((x + 1) / 2)[0]) * 2 - 1, x


class Differentiating(Whole):
    """Its forward pass needs gradients."""

    def forward(self, x: Tensor) -> Any:
        mean, _ = self.encode(x)
        (slope,) = torch.autograd.grad(self.decode(mean).sum(), mean)
        return self.decode(mean), slope


class Undefined(Whole):
    """Its forward pass also gives what is not a number."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x)[0], x.sum() * torch.nan


class Encoding(Vae):
    """Its forward pass gives a latent only."""

    def forward(self, x: Tensor) -> Tensor:
        return self.encode(x)[0]


class Failing(Vae):
    """Its forward pass wants something else."""

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return self.decode(self.encode(x)[0] + noise)


class Mixture(Whole):
    """Its prior was learned."""

    def __init__(self) -> None:
        super().__init__()
        self.prior_means = nn.Parameter(torch.zeros(10, 3))


class Conditional(Vae):
    """Both halves take a class."""

    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return super().encode(x)


class Hierarchical(Vae):
    """Two latents, of which the decoder takes both."""

    def decode(self, z: Tensor, coarse: Tensor) -> Tensor:  # type: ignore[override]
        return super().decode(z)


class Pyramid(nn.Module):
    """Maps of two sizes, in one list."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(1, 2, 2, 2), nn.ConvTranspose2d(2, 1, 2, 2)

    def encode(self, x: Tensor) -> list[Tensor]:
        return [self.down(x), self.down(self.up(self.down(x))[:, :, ::2, ::2])]

    def decode(self, latents: list[Tensor]) -> Tensor:
        fine, coarse = latents
        return self.up(fine + nn.functional.interpolate(coarse, scale_factor=2))


class Example(nn.Module):
    """PyTorch's own example, examples/vae, with its probabilities clamped as many copies of it do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc3 = nn.Linear(784, 40), nn.Linear(2, 40)
        self.fc21, self.fc22, self.fc4 = nn.Linear(40, 2), nn.Linear(40, 2), nn.Linear(40, 784)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h1 = torch.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        std = torch.exp(0.5 * logvar)
        return mu + torch.randn_like(std) * std

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.fc4(torch.relu(self.fc3(z)))).clamp(1e-4, 1 - 1e-4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(x.view(-1, 784))
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


class Trained(LightningModule):
    """A model in a module of Lightning."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = Vae(latent)


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
