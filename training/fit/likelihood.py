"""p(x|z): what the decoder's output means. Each likelihood says how many channels it needs for one of the image.

`parameters` turns the decoder's output into the tensors that the decoder graph answers; `log_prob` is summed over
pixels, in nats; `mean` is the picture in [0, 1]. Pixels are float in [0, 1].
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.recipe import Bernoulli, DiscretizedLogistic, Gaussian, GreyCrossEntropy

MIN_LOG_SCALE = -7.0
"""Scales below 1/1000 of the range are no use on 8-bit levels, and overflow."""
HALF_LEVEL = 0.5 / 255


class BernoulliLikelihood(nn.Module):
    """`logits`. On grey pixels `log_prob` is minus the cross entropy, which is no likelihood."""

    channels = 1
    names = ("logits",)

    def parameters_of(self, output: Tensor) -> dict[str, Tensor]:
        return {"logits": output}

    def mean(self, parameters: dict[str, Tensor]) -> Tensor:
        return parameters["logits"].sigmoid()

    def log_prob(self, parameters: dict[str, Tensor], pixels: Tensor) -> Tensor:
        """`[*, N]` of pixels `[N, C, H, W]` under logits `[*, N, C, H, W]`."""
        logits = parameters["logits"]
        values = functional.binary_cross_entropy_with_logits(logits, pixels.expand_as(logits), reduction="none")
        return -(values.flatten(-3).sum(dim=-1))


class GaussianLikelihood(nn.Module):
    """`mean`, and `log_scale`, which is the same for all pixels: fixed, or learned with the weights."""

    channels = 1
    names = ("mean", "log_scale")

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale or 1.0)), requires_grad=scale is None)

    def parameters_of(self, output: Tensor) -> dict[str, Tensor]:
        log_scale = self.log_scale.clamp(min=MIN_LOG_SCALE)
        return {"mean": output + 0.5, "log_scale": log_scale.expand_as(output)}

    def mean(self, parameters: dict[str, Tensor]) -> Tensor:
        return parameters["mean"]

    def log_prob(self, parameters: dict[str, Tensor], pixels: Tensor) -> Tensor:
        """`[*, N]`, the log of a density, of pixels `[N, C, H, W]` under parameters `[*, N, C, H, W]`."""
        mean, log_scale = parameters["mean"], parameters["log_scale"]
        standard = (pixels - mean) * (-log_scale).exp()
        return -(0.5 * standard.square() + log_scale + 0.5 * math.log(2 * math.pi)).flatten(-3).sum(dim=-1)


class DiscretizedLogisticLikelihood(nn.Module):
    """`mean` and `log_scale` of each pixel; the first half of the decoder's channels and the second."""

    channels = 2
    names = ("mean", "log_scale")

    def parameters_of(self, output: Tensor) -> dict[str, Tensor]:
        mean, log_scale = output.chunk(2, dim=-3)
        # exp(-2) of the range is about where an untrained mean needs it.
        return {"mean": mean + 0.5, "log_scale": (log_scale - 2).clamp(min=MIN_LOG_SCALE)}

    def mean(self, parameters: dict[str, Tensor]) -> Tensor:
        return parameters["mean"]

    def log_prob(self, parameters: dict[str, Tensor], pixels: Tensor) -> Tensor:
        """`[*, N]`, the log of a probability, of 8-bit pixels `[N, C, H, W]` under parameters `[*, N, C, H, W]`.

        The mass between the edges of a level; the lowest takes all below it, the highest all above.
        log(s(b) - s(a)) = log s(b) + log s(-a) + log(1 - exp(a - b)) keeps its precision far out in either tail.
        """
        mean, log_scale = parameters["mean"], parameters["log_scale"]
        precision = (-log_scale).exp()
        upper = (pixels + HALF_LEVEL - mean) * precision
        lower = (pixels - HALF_LEVEL - mean) * precision
        inside = torch.log(-torch.expm1(-2 * HALF_LEVEL * precision))
        left, right = functional.logsigmoid(upper), functional.logsigmoid(-lower)
        values = torch.where(
            pixels < HALF_LEVEL, left, torch.where(pixels > 1 - HALF_LEVEL, right, left + right + inside)
        )
        return values.flatten(-3).sum(dim=-1)


Likelihood = BernoulliLikelihood | GaussianLikelihood | DiscretizedLogisticLikelihood


def make_likelihood(options: Bernoulli | GreyCrossEntropy | Gaussian | DiscretizedLogistic) -> Likelihood:
    """The likelihood that a recipe asks for."""
    if isinstance(options, Gaussian):
        return GaussianLikelihood(None if options.scale == "learned" else options.scale)
    if isinstance(options, DiscretizedLogistic):
        return DiscretizedLogisticLikelihood()
    return BernoulliLikelihood()
