"""Likelihoods against torch.distributions and float64."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

from training import recipe
from training.fit.likelihood import (
    HALF_LEVEL,
    MIN_LOG_SCALE,
    BernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    GaussianLikelihood,
    Likelihood,
    make_likelihood,
    mean_image,
)

LEVELS = torch.arange(256, dtype=torch.float32).div(255).reshape(-1, 1, 1, 1)
"""All the values of an 8-bit pixel, an image each."""
GAUSSIAN = recipe.Gaussian(name="gaussian", scale="learned")
OPTIONS = {
    "bernoulli": (recipe.Bernoulli(), BernoulliLikelihood),
    "grey_cross_entropy": (recipe.GreyCrossEntropy(name="grey_cross_entropy"), BernoulliLikelihood),
    "gaussian": (GAUSSIAN, GaussianLikelihood),
    "discretized_logistic": (recipe.DiscretizedLogistic(name="discretized_logistic"), DiscretizedLogisticLikelihood),
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=OPTIONS)
def likelihood(request: pytest.FixtureRequest) -> Likelihood:
    options, kind = OPTIONS[request.param]
    made = make_likelihood(options)
    assert type(made) is kind
    return made


def levels(*shape: int) -> Tensor:
    """8-bit pixels in [0, 1]."""
    return torch.randint(256, shape).float() / 255


# What all have in common.


def test_parameters_have_the_images_shape_and_the_names_of_the_contract(likelihood: Likelihood) -> None:
    parameters = likelihood.parameters_of(torch.randn(2, 5, 3 * likelihood.channels, 4, 6))
    assert tuple(parameters) == likelihood.names
    assert likelihood.names == (("logits",) if isinstance(likelihood, BernoulliLikelihood) else ("mean", "log_scale"))
    assert {tuple(value.shape) for value in parameters.values()} == {(2, 5, 3, 4, 6)}


def test_one_value_an_image_whatever_the_draws(likelihood: Likelihood) -> None:
    """Draws lead: each is what it is alone, and channels are summed like pixels."""
    pixels, output = levels(5, 3, 4, 6).round(), torch.randn(2, 5, 3 * likelihood.channels, 4, 6)
    together = likelihood.log_prob(likelihood.parameters_of(output), pixels)
    assert together.shape == (2, 5)
    for draw, values in zip(output, together, strict=True):
        torch.testing.assert_close(likelihood.log_prob(likelihood.parameters_of(draw), pixels), values)
    one = likelihood.log_prob(likelihood.parameters_of(output[0, :1]), pixels[:1])
    torch.testing.assert_close(one, together[0, :1])


def test_the_picture_is_the_mean(likelihood: Likelihood) -> None:
    output = torch.randn(5, 3 * likelihood.channels, 4, 6)
    mean, pixels = mean_image(likelihood.parameters_of(output)), levels(5, 3, 4, 6)
    assert mean.shape == pixels.shape
    expected = output.sigmoid() if isinstance(likelihood, BernoulliLikelihood) else 0.5 + output[:, :3]
    torch.testing.assert_close(mean, expected)


def test_an_untrained_net_paints_grey(likelihood: Likelihood) -> None:
    mean = mean_image(likelihood.parameters_of(torch.zeros(1, likelihood.channels, 2, 2)))
    assert mean.tolist() == [[[[0.5, 0.5], [0.5, 0.5]]]]


# Bernoulli.


def test_bernoulli_agrees_with_torch_distributions() -> None:
    logits, pixels = 4 * torch.randn(6, 2, 5, 5), torch.rand(6, 2, 5, 5).round()
    expected = Bernoulli(logits=logits).log_prob(pixels).sum(dim=(1, 2, 3))
    torch.testing.assert_close(BernoulliLikelihood().log_prob({"logits": logits}, pixels), expected)


def test_cross_entropy_with_grey_values_averages_over_their_draws() -> None:
    likelihood, logits = BernoulliLikelihood(), torch.randn(1, 1, 4, 4)
    one, zero, grey = (likelihood.log_prob({"logits": logits}, torch.full((1, 1, 4, 4), v)) for v in (1.0, 0.0, 0.25))
    torch.testing.assert_close(grey, 0.25 * one + 0.75 * zero)


def test_bernoulli_bears_logits_of_any_size() -> None:
    logits = torch.tensor([[[[1000.0, -1000.0]]]], requires_grad=True)
    value = BernoulliLikelihood().log_prob({"logits": logits}, torch.zeros(1, 1, 1, 2))
    assert value.tolist() == [-1000.0]
    value.sum().backward()
    assert logits.grad.tolist() == [[[[-1.0, 0.0]]]]


# Gaussian.


@pytest.mark.parametrize("scale", [0.1, 1.0, 2.5, "learned"])
def test_gaussian_agrees_with_torch_distributions(scale: float | str) -> None:
    likelihood = make_likelihood(recipe.Gaussian(name="gaussian", scale=scale))
    if scale == "learned":
        assert likelihood.log_scale.item() == -2.0, "about the error of an untrained mean"
        with torch.no_grad():
            likelihood.log_scale.fill_(math.log(0.3))
    output, pixels = torch.randn(6, 2, 5, 5), levels(6, 2, 5, 5)
    theirs = Normal(output + 0.5, 0.3 if scale == "learned" else scale)
    ours = likelihood.log_prob(likelihood.parameters_of(output), pixels)
    torch.testing.assert_close(ours, theirs.log_prob(pixels).sum(dim=(1, 2, 3)))


def test_only_a_learned_scale_learns() -> None:
    output, pixels = torch.randn(6, 2, 5, 5, requires_grad=True), levels(6, 2, 5, 5)
    learned, fixed = (make_likelihood(recipe.Gaussian(name="gaussian", scale=scale)) for scale in ("learned", 1.0))
    for likelihood in (learned, fixed):
        likelihood.log_prob(likelihood.parameters_of(output), pixels).sum().backward()
    squares = (output.detach() + 0.5 - pixels).square()
    torch.testing.assert_close(learned.log_scale.grad, squares.sum() * math.exp(4) - squares.numel())  # at exp(-2)
    assert fixed.log_scale.grad is None
    assert not fixed.log_scale.requires_grad


def test_the_scale_that_is_learned_is_the_root_of_the_mean_square() -> None:
    likelihood, output, pixels = make_likelihood(GAUSSIAN), torch.randn(6, 2, 5, 5), levels(6, 2, 5, 5)
    optimizer = torch.optim.LBFGS(likelihood.parameters(), max_iter=50)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = -likelihood.log_prob(likelihood.parameters_of(output), pixels).mean()
        value.backward()
        return value

    optimizer.step(loss)
    root = (output + 0.5 - pixels).square().mean().sqrt()
    assert likelihood.log_scale.exp().item() == pytest.approx(root.item(), rel=1e-3)


def test_a_scale_does_not_fall_without_end() -> None:
    likelihood = make_likelihood(recipe.Gaussian(name="gaussian", scale=1e-9))
    parameters = likelihood.parameters_of(torch.zeros(1, 1, 2, 2))
    assert set(parameters["log_scale"].flatten().tolist()) == {MIN_LOG_SCALE}


# Discretized logistic.

MEANS = [-30.0, -0.2, 0.0, 1 / 255, 0.3, 0.5019, 1.0, 1.4, 50.0]
LOG_SCALES = [MIN_LOG_SCALE, -5.0, -2.0, 0.0, 3.0]


def log_probs(mean: float, log_scale: float) -> Tensor:
    """Of all levels, `[256]`."""
    parameters = {"mean": torch.full_like(LEVELS, mean), "log_scale": torch.full_like(LEVELS, log_scale)}
    return DiscretizedLogisticLikelihood().log_prob(parameters, LEVELS)


@pytest.mark.parametrize("log_scale", LOG_SCALES)
@pytest.mark.parametrize("mean", MEANS)
def test_the_probabilities_of_all_levels_sum_to_one(mean: float, log_scale: float) -> None:
    values = log_probs(mean, log_scale).double()
    assert (values <= 0).all()
    assert values.exp().sum().item() == pytest.approx(1.0, abs=2e-4)


@pytest.mark.parametrize("log_scale", LOG_SCALES)
@pytest.mark.parametrize("mean", [-0.2, 0.0, 0.3, 0.5019, 1.0, 1.4])
def test_a_levels_probability_is_a_difference_of_cumulative_ones(mean: float, log_scale: float) -> None:
    distance, scale = LEVELS.double().flatten() - mean, math.exp(log_scale)
    # The logistic distribution is symmetric: in the upper tail mirrored, so that no digits are lost near one.
    sign = torch.where(distance > 0, -1, 1)
    low, high = ((sign * distance + edge) / scale for edge in (-HALF_LEVEL, HALF_LEVEL))
    exact = high.sigmoid() - low.sigmoid()
    exact[0], exact[-1] = torch.tensor([HALF_LEVEL - mean, HALF_LEVEL - (1 - mean)]).double().div(scale).sigmoid()
    assert exact.sum().item() == pytest.approx(1.0, abs=1e-5)
    kept = exact > 1e-300
    torch.testing.assert_close(log_probs(mean, log_scale)[kept].double(), exact[kept].log(), atol=2e-3, rtol=2e-4)


def test_each_pixel_has_its_own_mean_and_scale() -> None:
    likelihood, output, pixels = DiscretizedLogisticLikelihood(), torch.randn(4, 2 * 3, 2, 2), levels(4, 3, 2, 2)
    parameters = likelihood.parameters_of(output)
    torch.testing.assert_close(parameters["mean"], output[:, :3] + 0.5)
    torch.testing.assert_close(parameters["log_scale"], output[:, 3:] - 2)
    alone = [
        log_probs(mean, log_scale)[round(255 * pixel)].item()
        for mean, log_scale, pixel in zip(
            *(values.flatten().tolist() for values in (*parameters.values(), pixels)), strict=True
        )
    ]
    expected = torch.tensor(alone).reshape(4, -1).sum(dim=1)
    torch.testing.assert_close(likelihood.log_prob(parameters, pixels), expected, atol=1e-3, rtol=1e-5)


def test_far_in_the_tails_values_and_gradients_stay_finite_and_point_home() -> None:
    likelihood, outputs = DiscretizedLogisticLikelihood(), []
    for mean in (-1e4, -5.0, 0.5, 5.0, 1e4):
        for log_scale in (-1e4, -5.0, 0.0, 20.0):
            output = torch.tensor([mean, log_scale]).reshape(1, 2, 1, 1).repeat(256, 1, 1, 1).requires_grad_()
            values = likelihood.log_prob(likelihood.parameters_of(output), LEVELS)
            values.sum().backward()
            assert values.isfinite().all(), (mean, log_scale)
            assert output.grad.isfinite().all(), (mean, log_scale)
            outputs.append(output)
    low, high = outputs[1].grad[128, 0], outputs[-3].grad[128, 0]  # at log_scale -5, from either side
    assert low > 1
    assert high < -1
