"""Likelihoods p(x|z): the meaning of the decoder's output.

`channels` is the number of output channels per image channel. `parameters_of` turns the decoder's output
`[*, channels * C, H, W]` into the outputs of the decoder graph, `names`, each `[*, C, H, W]`. `log_prob` is log p(x|z)
in nats, summed over pixels, of float pixels in [0, 1].
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.recipe import Bernoulli, DiscretizedLogistic, Gaussian, GreyCrossEntropy

MIN_LOG_SCALE = -7.0
"""Floor of log scales: scales below 1/1000 of the range overflow, and are finer than 8-bit levels."""
START_LOG_SCALE = -2.0
"""Log scale before training: about the error of an untrained mean."""
HALF_LEVEL = 0.5 / 255


class BernoulliLikelihood(nn.Module):
    """Binary pixels, given by `logits`. For gray pixels, `log_prob` is minus the cross entropy: not a likelihood."""

    channels = 1
    names = ("logits",)

    def parameters_of(self, output: Tensor) -> dict[str, Tensor]:
        return {"logits": output}

    def log_prob(self, parameters: dict[str, Tensor], pixels: Tensor) -> Tensor:
        """Log probability `[*, N]` of pixels `[N, C, H, W]` under logits `[*, N, C, H, W]`."""
        logits = parameters["logits"]
        values = functional.binary_cross_entropy_with_logits(logits, pixels.expand_as(logits), reduction="none")
        return -(values.flatten(-3).sum(dim=-1))


class GaussianLikelihood(nn.Module):
    """A normal distribution with a `mean` per pixel, and one `log_scale` for all pixels, fixed or learned."""

    channels = 1
    names = ("mean", "log_scale")

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        start = START_LOG_SCALE if scale is None else math.log(scale)
        self.log_scale = nn.Parameter(torch.tensor(start), requires_grad=scale is None)

    def parameters_of(self, output: Tensor) -> dict[str, Tensor]:
        log_scale = self.log_scale.clamp(min=MIN_LOG_SCALE)
        return {"mean": output + 0.5, "log_scale": log_scale.expand_as(output)}

    def log_prob(self, parameters: dict[str, Tensor], pixels: Tensor) -> Tensor:
        """Log density `[*, N]` of pixels `[N, C, H, W]` under parameters `[*, N, C, H, W]`."""
        mean, log_scale = parameters["mean"], parameters["log_scale"]
        standard = (pixels - mean) * (-log_scale).exp()
        return -(0.5 * standard.square() + log_scale + 0.5 * math.log(2 * math.pi)).flatten(-3).sum(dim=-1)


class DiscretizedLogisticLikelihood(nn.Module):
    """A logistic distribution per pixel: `mean` and `log_scale` are the halves of the decoder's channels.

    Kingma et al. 2016, appendix C.1; Salimans et al. 2017, equation 2.
    """

    channels = 2
    names = ("mean", "log_scale")

    def parameters_of(self, output: Tensor) -> dict[str, Tensor]:
        mean, log_scale = output.chunk(2, dim=-3)
        return {"mean": mean + 0.5, "log_scale": (log_scale + START_LOG_SCALE).clamp(min=MIN_LOG_SCALE)}

    def log_prob(self, parameters: dict[str, Tensor], pixels: Tensor) -> Tensor:
        """Log probability `[*, N]` of 8-bit pixels `[N, C, H, W]` under parameters `[*, N, C, H, W]`.

        A level's probability is the mass between its edges, including the whole tail for the lowest and highest level.
        With s the sigmoid, log(s(b) - s(a)) = log s(b) + log s(-a) + log(1 - exp(a - b)) is precise in both tails.
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


def mean_image(parameters: dict[str, Tensor]) -> Tensor:
    """The mean of p(x|z) `[*, C, H, W]`, nominally in [0, 1]."""
    return parameters["mean"] if "mean" in parameters else parameters["logits"].sigmoid()


Likelihood = BernoulliLikelihood | GaussianLikelihood | DiscretizedLogisticLikelihood


def make_likelihood(options: Bernoulli | GreyCrossEntropy | Gaussian | DiscretizedLogistic) -> Likelihood:
    """Make the likelihood of a recipe's options."""
    if isinstance(options, Gaussian):
        return GaussianLikelihood(None if options.scale == "learned" else options.scale)
    if isinstance(options, DiscretizedLogistic):
        return DiscretizedLogisticLikelihood()
    return BernoulliLikelihood()
