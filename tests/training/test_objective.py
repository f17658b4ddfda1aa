"""Loss terms against torch.distributions, and draws against their definitions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Independent, Normal
from torch.distributions import kl_divergence as their_kl

from training.objective import binarize, cross_entropy, draw, kl_divergence

vectors = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=8)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_kl_agrees_with_torch_distributions() -> None:
    mean, log_std = 3 * torch.randn(20, 5), torch.randn(20, 5)
    theirs = their_kl(Normal(mean, log_std.exp()), Normal(0.0, 1.0)).sum(dim=1)
    torch.testing.assert_close(kl_divergence(mean, log_std), theirs)


def test_kl_agrees_with_its_own_estimate() -> None:
    """KL = E_q[log q(z) - log p(z)]: this knows nothing of the closed form, nor of its sign."""
    mean, log_std = torch.tensor([[0.5, -1.0]]), torch.tensor([[-0.7, 0.2]])
    z = draw(mean.expand(200_000, 2), log_std.expand(200_000, 2))
    q, p = Normal(mean, log_std.exp()), Normal(0.0, 1.0)
    estimate = (q.log_prob(z) - p.log_prob(z)).sum(dim=1).mean()
    assert kl_divergence(mean, log_std).item() == pytest.approx(estimate.item(), abs=0.02)


@given(vectors, st.data())
@settings(deadline=None)
def test_kl_is_never_negative(mean: list[float], data: st.DataObject) -> None:
    log_std = data.draw(st.lists(st.floats(-8, 8, width=32), min_size=len(mean), max_size=len(mean)))
    kl = kl_divergence(torch.tensor([mean]), torch.tensor([log_std]))
    assert kl.shape == (1,)
    assert kl.item() >= -1e-6  # float32 rounds 1 + 2s - 2s - 1


def test_kl_of_the_prior_is_zero() -> None:
    assert kl_divergence(torch.zeros(3, 4), torch.zeros(3, 4)).tolist() == [0.0] * 3


def test_cross_entropy_on_binary_pixels_is_minus_the_log_likelihood() -> None:
    logits, pixels = 4 * torch.randn(6, 2, 5, 5), torch.rand(6, 2, 5, 5).round()
    likelihood = Independent(Bernoulli(logits=logits), 3)
    torch.testing.assert_close(cross_entropy(logits, pixels), -likelihood.log_prob(pixels))


def test_cross_entropy_with_grey_values_averages_over_their_draws() -> None:
    logits, pixels = torch.randn(1, 1, 4, 4), torch.rand(1, 1, 4, 4)
    one, zero = cross_entropy(logits, torch.ones_like(pixels)), cross_entropy(logits, torch.zeros_like(pixels))
    assert cross_entropy(logits, torch.full_like(pixels, 0.25)).item() == pytest.approx(
        (0.25 * one + 0.75 * zero).item(), rel=1e-5
    )


def test_cross_entropy_bears_logits_of_any_size() -> None:
    logits, pixels = torch.tensor([[[[1000.0, -1000.0]]]]), torch.tensor([[[[0.0, 0.0]]]])
    assert cross_entropy(logits, pixels).tolist() == [1000.0]


def test_draws_have_the_mean_and_the_spread() -> None:
    mean, log_std = torch.tensor([3.0, -1.0]).expand(50_000, 2), torch.tensor([-1.0, 0.5]).expand(50_000, 2)
    draws = draw(mean, log_std)
    torch.testing.assert_close(draws.mean(dim=0), mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(draws.std(dim=0), log_std[0].exp(), atol=0.02, rtol=0)
    assert abs(torch.corrcoef(draws.T)[0, 1]) < 0.02


def test_gradients_go_through_a_draw() -> None:
    mean, log_std = torch.zeros(1, 2, requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    z = draw(mean, log_std)
    z.sum().backward()
    assert mean.grad.tolist() == [[1.0, 1.0]]
    torch.testing.assert_close(log_std.grad, z.detach())  # d/ds exp(s) eps at s = 0


def test_pixels_become_white_as_often_as_they_are_bright() -> None:
    grey = torch.tensor([0.0, 0.1, 0.5, 0.9, 1.0]).expand(20_000, 5)
    binary = binarize(grey)
    assert set(binary.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(binary.mean(dim=0), grey[0], atol=0.015, rtol=0)
    assert binary[:, 0].sum() == 0
    assert binary[:, 4].sum() == 20_000
    assert not torch.equal(binarize(grey), binary), "drawn anew each time"
