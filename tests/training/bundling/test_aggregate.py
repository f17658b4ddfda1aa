"""The aggregated posterior: a label's components have the label's moments and its share of the weight."""

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, kl_divergence

from app.maths.gaussian import Mixture
from training.bundling.aggregate import DRAWS_PER_LABEL, components_per_label, fit_mixture, gap_to_prior

COVARIANCES = {3: np.array([[1.0, 0.8], [0.8, 1.0]]), 8: np.array([[0.2, 0.0], [0.0, 3.0]])}
MEANS = {3: np.array([5.0, 0.0]), 8: np.array([-5.0, 1.0])}


@pytest.fixture(scope="module")
def draws_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """Label 3 three times as often as label 8."""
    rng = np.random.default_rng(0)
    labels = np.array([3, 3, 8, 3] * 300, np.uint8)
    draws = np.stack([rng.multivariate_normal(MEANS[label], COVARIANCES[label]) for label in labels])
    return draws.astype(np.float32), labels


@pytest.fixture(scope="module")
def mixture(draws_and_labels: tuple[np.ndarray, np.ndarray]) -> Mixture:
    return fit_mixture(*draws_and_labels, seed=0)


def test_a_label_weighs_its_share(mixture: Mixture) -> None:
    assert mixture.weights.sum() == pytest.approx(1.0, abs=1e-6)
    assert mixture.weights[mixture.labels == 3].sum() == pytest.approx(0.75, abs=1e-6)
    assert mixture.weights[mixture.labels == 8].sum() == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("label", [3, 8])
def test_a_labels_components_have_its_moments(
    mixture: Mixture, draws_and_labels: tuple[np.ndarray, np.ndarray], label: int
) -> None:
    draws = draws_and_labels[0][draws_and_labels[1] == label]
    own = mixture.labels == label
    weights = mixture.weights[own] / mixture.weights[own].sum()
    mean = weights @ mixture.means[own]
    np.testing.assert_allclose(mean, draws.mean(axis=0), atol=1e-3)
    covariances = mixture.cholesky[own] @ mixture.cholesky[own].swapaxes(1, 2)
    spread = mixture.means[own] - mean
    total = np.einsum("k,kij->ij", weights, covariances) + np.einsum("k,ki,kj->ij", weights, spread, spread)
    np.testing.assert_allclose(total, np.cov(draws.T, bias=True), atol=1e-2)


def test_its_draws_are_spread_like_the_latents(
    mixture: Mixture, draws_and_labels: tuple[np.ndarray, np.ndarray]
) -> None:
    sampled = mixture.sample(0, 4000)
    latents = draws_and_labels[0]
    np.testing.assert_allclose(sampled.mean(axis=0), latents.mean(axis=0), atol=0.2)
    np.testing.assert_allclose(np.cov(sampled.T), np.cov(latents.T), rtol=0.1, atol=0.3)
    assert (mixture.sample(0, 200, label=8)[:, 0] < 0).all()


def test_types_and_shapes_are_the_contracts(mixture: Mixture) -> None:
    count = 2 * components_per_label(2)
    assert (mixture.weights.dtype, mixture.weights.shape) == (np.float32, (count,))
    assert (mixture.means.dtype, mixture.means.shape) == (np.float32, (count, 2))
    assert (mixture.cholesky.dtype, mixture.cholesky.shape) == (np.float32, (count, 2, 2))
    assert (mixture.labels.dtype, mixture.labels.tolist()) == (np.int64, [3] * (count // 2) + [8] * (count // 2))
    assert not np.triu(mixture.cholesky, k=1).any()


def test_the_seed_decides_the_mixture(mixture: Mixture, draws_and_labels: tuple[np.ndarray, np.ndarray]) -> None:
    again = fit_mixture(*draws_and_labels, seed=0)
    assert np.array_equal(again.means, mixture.means)
    assert not np.array_equal(fit_mixture(*draws_and_labels, seed=1).means, mixture.means)


def test_a_label_is_fitted_to_its_first_draws_and_weighs_all_of_them() -> None:
    count = DRAWS_PER_LABEL + 1000
    draws = np.random.default_rng(0).normal(size=(count + 1000, 1)).astype(np.float32)
    draws[DRAWS_PER_LABEL:count] = 1e6
    labels = np.repeat(np.array([0, 1], np.uint8), [count, 1000])
    mixture = fit_mixture(draws, labels, seed=0)
    assert np.abs(mixture.means).max() < 10
    assert mixture.weights[mixture.labels == 0].sum() == pytest.approx(count / (count + 1000), abs=1e-6)


def test_no_more_components_than_there_are_draws_for_their_parameters() -> None:
    counts = [components_per_label(latent) for latent in (1, 2, 32, 50, 64, 1000)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 1
    assert counts[-1] == 1
    for latent, count in zip((32, 50, 64), counts[2:5], strict=True):
        assert count * latent * (latent + 3) / 2 <= DRAWS_PER_LABEL


def test_without_labels_components_have_none(draws_and_labels: tuple[np.ndarray, np.ndarray]) -> None:
    draws = draws_and_labels[0]
    mixture = fit_mixture(draws, None, seed=0)
    assert set(mixture.labels.tolist()) == {-1}
    assert len(mixture.labels) > components_per_label(2)
    assert mixture.weights.sum() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(mixture.sample(0, 4000).mean(axis=0), draws.mean(axis=0), atol=0.3)


def test_few_draws_get_few_components() -> None:
    assert len(fit_mixture(np.eye(2, dtype=np.float32), None, seed=0).labels) == 1


GAUSSIAN = Mixture(
    np.ones(1, np.float32), np.array([[1, 2]], np.float32), np.array([[[2, 0], [0.5, 0.3]]], np.float32), np.zeros(1)
)


def test_the_gap_of_a_gaussian_is_its_kl() -> None:
    draws = GAUSSIAN.sample(0, 50_000)
    cholesky = torch.tensor(GAUSSIAN.cholesky[0])
    exact = kl_divergence(
        MultivariateNormal(torch.tensor(GAUSSIAN.means[0]), scale_tril=cholesky),
        MultivariateNormal(torch.zeros(2), torch.eye(2)),
    )
    assert gap_to_prior(GAUSSIAN, draws) == pytest.approx(exact.item(), abs=0.06)


def test_the_gap_of_a_mixture_agrees_with_torch(mixture: Mixture) -> None:
    draws = mixture.sample(1, 500)
    theirs = MixtureSameFamily(
        Categorical(torch.tensor(mixture.weights)),
        MultivariateNormal(torch.tensor(mixture.means), scale_tril=torch.tensor(mixture.cholesky)),
    ).log_prob(torch.tensor(draws)) - MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(torch.tensor(draws))
    assert gap_to_prior(mixture, draws) == pytest.approx(theirs.mean().item(), rel=1e-4)


def test_a_mixture_that_fits_badly_only_lowers_the_bound() -> None:
    draws = GAUSSIAN.sample(0, 20_000)
    shifted = Mixture(GAUSSIAN.weights, GAUSSIAN.means + 1, GAUSSIAN.cholesky, GAUSSIAN.labels)
    assert gap_to_prior(shifted, draws) < gap_to_prior(GAUSSIAN, draws)
