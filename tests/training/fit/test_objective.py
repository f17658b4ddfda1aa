"""Loss terms against torch.distributions and float64, and gradients against autograd's."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal
from torch.distributions import kl_divergence as their_kl

from training.fit.objective import dreg_loss, free_bits, importance_weights, iwae, kl_divergence, log_normal

vectors = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=8)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# The KL.


def test_kl_agrees_with_torch_distributions() -> None:
    mean, log_std = 3 * torch.randn(20, 5), torch.randn(20, 5)
    torch.testing.assert_close(kl_divergence(mean, log_std), their_kl(Normal(mean, log_std.exp()), Normal(0.0, 1.0)))


def test_kl_agrees_with_its_own_estimate() -> None:
    """KL = E_q[log q(z) - log p(z)]: this knows nothing of the closed form, nor of its sign."""
    mean, log_std = torch.tensor([0.5, -1.0]), torch.tensor([-0.7, 0.2])
    z = mean + log_std.exp() * torch.randn(200_000, 2)
    estimate = (Normal(mean, log_std.exp()).log_prob(z) - Normal(0.0, 1.0).log_prob(z)).mean(dim=0)
    torch.testing.assert_close(kl_divergence(mean[None], log_std[None])[0], estimate, atol=0.02, rtol=0)


@given(vectors, st.data())
@settings(deadline=None)
def test_kl_is_never_negative(mean: list[float], data: st.DataObject) -> None:
    log_std = data.draw(st.lists(st.floats(-8, 8, width=32), min_size=len(mean), max_size=len(mean)))
    kl = kl_divergence(torch.tensor([mean]), torch.tensor([log_std]))
    assert kl.shape == (1, len(mean))
    assert (kl >= 0).all()


def test_kl_of_the_prior_is_zero() -> None:
    assert not kl_divergence(torch.zeros(3, 4), torch.zeros(3, 4)).any()


# Free bits.


def test_free_bits_count_a_dimension_at_least_so_many_nats() -> None:
    kl = torch.tensor([[0.0, 1.0, 3.0], [0.2, 1.0, 5.0]])  # means 0.1, 1 and 4
    assert free_bits(kl, 0.0).item() == pytest.approx(5.1)
    assert free_bits(kl, 0.5).item() == pytest.approx(0.5 + 1 + 4)
    assert free_bits(kl, 10.0).item() == pytest.approx(30.0)


def test_a_dimension_within_its_free_bits_has_no_gradient_and_one_above_has_its_own() -> None:
    mean, log_std = torch.tensor([[0.1, 2.0], [-0.1, 1.0]], requires_grad=True), torch.zeros(2, 2)
    free_bits(kl_divergence(mean, log_std), 0.5).backward()
    # d/dm of the batch's mean of m^2 / 2
    torch.testing.assert_close(mean.grad, torch.tensor([[0.0, 1.0], [0.0, 0.5]]))


# Importance weights and the IWAE bound.


def weights(k: int, n: int = 6, d: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log p(x|z) `[k, N]`, draws `[k, N, d]`, mean and log_std `[N, d]`."""
    mean, log_std = torch.randn(n, d), 0.5 * torch.randn(n, d)
    return -100 + 10 * torch.randn(k, n), mean + log_std.exp() * torch.randn(k, n, d), mean, log_std


def test_log_normal_agrees_with_torch_distributions() -> None:
    _, z, mean, log_std = weights(4)
    torch.testing.assert_close(log_normal(z, mean, log_std), Normal(mean, log_std.exp()).log_prob(z).sum(dim=-1))


def test_importance_weights_agree_with_torch_distributions() -> None:
    log_p_x, z, mean, log_std = weights(4)
    expected = log_p_x + (Normal(0.0, 1.0).log_prob(z) - Normal(mean, log_std.exp()).log_prob(z)).sum(dim=-1)
    result = importance_weights(log_p_x, z, mean, log_std)
    assert result.shape == (4, 6)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("k", [1, 2, 50])
def test_iwae_is_the_log_of_the_mean_weight(k: int) -> None:
    log_weights = -90 + 20 * torch.randn(k, 7)
    expected = log_weights.double().exp().mean(dim=0).log()
    assert (expected > -1000).all(), "float64 holds exp(-150)"
    torch.testing.assert_close(iwae(log_weights).double(), expected, atol=1e-4, rtol=1e-6)


def test_iwae_bears_weights_that_no_float_holds() -> None:
    assert iwae(torch.tensor([[-1e4], [-1e4]])).item() == pytest.approx(-1e4)
    assert iwae(torch.tensor([[-1e4], [1e4]])).item() == pytest.approx(1e4 - math.log(2))


def test_with_one_draw_iwae_estimates_the_elbo() -> None:
    """Under q(z|x), log w is log p(x|z) less an estimate of the KL."""
    mean, log_std = torch.tensor([0.5, -1.0]), torch.tensor([-0.7, 0.2])
    z = (mean + log_std.exp() * torch.randn(200_000, 2))[None]
    log_p_x = -z.square().sum(dim=-1)
    elbo = log_p_x.mean() - kl_divergence(mean[None], log_std[None]).sum()
    assert iwae(importance_weights(log_p_x, z, mean, log_std)).mean().item() == pytest.approx(elbo.item(), abs=0.02)


def linear_gaussian(z: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """log N(x; weight z, 1) of z `[..., 1]`: a model whose log p(x) is known, and its posterior too."""
    return Normal(weight * z[..., 0], 1.0).log_prob(x)


def test_iwae_rises_with_k_to_log_p_x() -> None:
    x, weight, n = torch.tensor(1.5), torch.tensor(1.0), 100_000
    mean, log_std = torch.zeros(n, 1), torch.zeros(n, 1)  # the prior: a poor posterior
    z = torch.randn(8, n, 1)
    log_weights = importance_weights(linear_gaussian(z, x, weight), z, mean, log_std)
    bounds = [iwae(log_weights[:k]) for k in (1, 2, 4, 8)]
    log_p_x = Normal(0.0, math.sqrt(2)).log_prob(x).item()
    for lower, higher in zip(bounds, [*bounds[1:], torch.full((n,), log_p_x)], strict=True):
        gap = higher - lower
        assert gap.mean() > 5 * gap.std() / math.sqrt(n)


# The doubly reparameterised gradient.


def gradients(
    x: Tensor, mean: float, log_std: float, weight: float, *, k: int, runs: int, dreg: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients `[runs]` of the negative bound by mean, log_std and weight, one of each from every run of k draws."""
    leaves = [torch.full((runs,), value, requires_grad=True) for value in (mean, log_std, weight)]
    m, s, w = leaves
    z = (m + s.exp() * torch.randn(k, runs, generator=torch.Generator().manual_seed(1)))[..., None]  # [k, runs, 1]
    if dreg:
        m, s = m.detach(), s.detach()
    log_weights = importance_weights(linear_gaussian(z, x, w), z, m[:, None], s[:, None])
    loss = dreg_loss(log_weights, z) if dreg else -iwae(log_weights)
    return torch.autograd.grad(loss.sum(), leaves)


X = torch.tensor(1.5)
OFF = {"mean": 0.1, "log_std": 0.4, "weight": 1.2}


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_decoders_gradient_is_that_of_the_bound(k: int) -> None:
    plain, dreg = (gradients(X, **OFF, k=k, runs=500, dreg=dreg)[2] for dreg in (False, True))
    assert plain.abs().min() > 0
    torch.testing.assert_close(dreg, plain)


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("which", [0, 1], ids=["mean", "log_std"])
def test_the_encoders_gradient_is_that_of_the_bound_in_expectation(k: int, which: int) -> None:
    runs = 100_000
    plain, dreg = (gradients(X, **OFF, k=k, runs=runs, dreg=dreg)[which] for dreg in (False, True))
    assert not torch.allclose(dreg, plain), "draw by draw they differ"
    difference = dreg - plain
    assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(runs)
    assert abs(plain.mean()) > 10 * difference.std() / math.sqrt(runs), "or the comparison would tell nothing"


@pytest.mark.parametrize("k", [1, 5])
def test_at_the_true_posterior_the_encoders_gradient_vanishes_in_every_draw(k: int) -> None:
    weight = 1.2
    variance = 1 / (1 + weight**2)
    optimum = {"mean": variance * weight * X.item(), "log_std": 0.5 * math.log(variance), "weight": weight}
    for plain, dreg in zip(
        gradients(X, **optimum, k=k, runs=1000, dreg=False)[:2],
        gradients(X, **optimum, k=k, runs=1000, dreg=True)[:2],
        strict=True,
    ):
        assert dreg.abs().max() < 1e-5
        assert plain.std() > 0.05, "the plain gradient does not"


def test_the_encoders_gradient_weighs_each_draw_with_its_weights_square() -> None:
    """Tucker et al. 2018, equation 7, written out for three draws."""
    z = torch.tensor([-0.5, 0.4, 1.1]).reshape(3, 1, 1)
    mean, log_std = torch.tensor([[0.3]]), torch.tensor([[-0.2]])

    def log_weights(z: Tensor) -> Tensor:
        return importance_weights(linear_gaussian(z, X, torch.tensor(1.2)), z, mean, log_std)

    leaf = z.clone().requires_grad_()
    slopes = torch.autograd.grad(log_weights(leaf).sum(), leaf)[0][:, 0, 0]
    expected = -log_weights(z).softmax(dim=0)[:, 0].square() * slopes
    leaf = z.clone().requires_grad_()
    dreg_loss(log_weights(leaf), leaf).sum().backward()
    torch.testing.assert_close(leaf.grad[:, 0, 0], expected)


def test_without_an_encoder_to_reach_only_the_decoder_has_a_gradient() -> None:
    z, weight = torch.randn(3, 4, 1), torch.tensor(1.2, requires_grad=True)
    log_weights = importance_weights(linear_gaussian(z, X, weight), z, torch.zeros(4, 1), torch.zeros(4, 1))
    dreg_loss(log_weights, z).sum().backward()
    assert weight.grad != 0


def test_free_bits_are_of_the_mean_over_images_in_each_dimension() -> None:
    kl = torch.tensor([[0.0, 0.1], [2.0, 0.1]])
    assert free_bits(kl, 0.5).item() == pytest.approx(1.0 + 0.5)
