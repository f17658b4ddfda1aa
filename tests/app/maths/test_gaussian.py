"""Posteriors, draws, KL and paths against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence

from app.maths.gaussian import (
    Mixture,
    Posterior,
    interpolate,
    lerp,
    manifold_grid,
    normal_quantile,
    sample_prior,
    slerp,
    standard_normal,
    truncated_normal,
)

seeds = st.integers(0, 2**31 - 1)


def posterior(rows: int = 5, d: int = 3) -> Posterior:
    rng = np.random.default_rng(0)
    return Posterior(rng.normal(size=(rows, d)).astype("f4"), rng.normal(size=(rows, d)).astype("f4"))


def test_kl_agrees_with_torch_distributions() -> None:
    q = posterior()
    assert q.log_std is not None
    theirs = kl_divergence(Normal(torch.tensor(q.mean), torch.tensor(np.exp(q.log_std))), Normal(0.0, 1.0))
    np.testing.assert_allclose(q.kl(), theirs.numpy(), rtol=1e-5)


def test_kl_of_the_prior_is_zero_and_otherwise_positive() -> None:
    zeros = np.zeros((1, 4), np.float32)
    assert Posterior(zeros, zeros).kl().tolist() == [[0.0] * 4]
    assert (posterior().kl() > 0).all()


def test_draws_have_the_posteriors_mean_and_spread() -> None:
    mean, log_std = np.float32(3.0), np.float32(-1.0)
    q = Posterior(np.full((20_000, 1), mean), np.full((20_000, 1), log_std))
    draws = q.draw(seed=1)
    assert draws.dtype == np.float32
    assert draws.mean() == pytest.approx(3.0, abs=0.01)
    assert draws.std() == pytest.approx(np.exp(-1.0), abs=0.01)


def test_a_deterministic_encoder_has_no_draws_and_no_kl() -> None:
    q = Posterior(np.zeros((1, 2), np.float32), None)
    with pytest.raises(ValueError, match="deterministic"):
        q.draw(0)
    with pytest.raises(ValueError, match="deterministic"):
        q.kl()


@given(seeds, st.integers(1, 20))
def test_a_row_does_not_depend_on_how_many_are_asked_for(seed: int, rows: int) -> None:
    many = standard_normal(seed, rows + 5, (3,))
    assert np.array_equal(many[:rows], standard_normal(seed, rows, (3,)))


@given(seeds, st.floats(0.1, 5))
def test_truncated_draws_stay_inside(seed: int, truncation: float) -> None:
    draws = truncated_normal(seed, 4, (8,), truncation)
    assert np.abs(draws).max() <= np.float32(truncation)


def test_truncated_draws_follow_the_truncated_normal() -> None:
    draws = truncated_normal(0, 20_000, (1,), 1.0)
    assert draws.mean() == pytest.approx(0.0, abs=0.01)
    assert draws.std() == pytest.approx(0.5396, abs=0.01)  # sqrt(1 - 2 phi(1) / (2 Phi(1) - 1))


def test_temperature_scales_the_draws() -> None:
    hot, plain = sample_prior(3, 4, (2,), temperature=2.0), sample_prior(3, 4, (2,))
    np.testing.assert_array_equal(hot, 2 * plain)
    assert not sample_prior(3, 4, (2,), temperature=0.0).any()


def test_truncation_bounds_before_temperature_scales() -> None:
    draws = sample_prior(0, 500, (2,), temperature=3.0, truncation=0.5)
    assert 1.0 < np.abs(draws).max() <= 1.5


MIXTURE = Mixture(
    weights=np.array([0.25, 0.75], np.float32),
    means=np.array([[-10, 0], [10, 0]], np.float32),
    cholesky=np.stack([np.eye(2, dtype=np.float32), 0.5 * np.eye(2, dtype=np.float32)]),
    labels=np.array([4, 7]),
)


def test_a_mixture_draws_its_components_by_weight() -> None:
    draws = MIXTURE.sample(0, 4000)
    right = draws[draws[:, 0] > 0]
    assert len(right) / 4000 == pytest.approx(0.75, abs=0.03)
    assert right.std(axis=0) == pytest.approx([0.5, 0.5], abs=0.03)


def test_a_mixture_draws_one_label_alone() -> None:
    assert (MIXTURE.sample(0, 50, label=4)[:, 0] < 0).all()
    with pytest.raises(ValueError, match="label"):
        MIXTURE.sample(0, 1, label=5)


def test_temperature_scales_within_a_component_of_a_mixture() -> None:
    draws = MIXTURE.sample(0, 50, temperature=0.0)
    assert {tuple(draw) for draw in draws.tolist()} == {(-10.0, 0.0), (10.0, 0.0)}


def test_normal_quantile_inverts_the_cdf() -> None:
    u = np.array([0.025, 0.5, 0.975])
    np.testing.assert_allclose(normal_quantile(u), [-1.959964, 0.0, 1.959964], atol=1e-6)


def test_the_manifold_is_read_from_the_largest_second_coordinate_down() -> None:
    grid = manifold_grid(3)
    assert grid.shape == (9, 2)
    assert grid[0] == pytest.approx([-1.6449, 1.6449], abs=1e-4)
    assert grid[4] == pytest.approx([0.0, 0.0], abs=1e-9)
    assert grid[-1] == pytest.approx([1.6449, -1.6449], abs=1e-4)
    assert manifold_grid(1).tolist() == [[0.0, 0.0]]


vectors = st.lists(st.floats(-10, 10, width=32), min_size=4, max_size=4).map(lambda v: np.array(v, np.float32))


@given(vectors, vectors)
def test_paths_start_and_end_at_their_points(a: np.ndarray, b: np.ndarray) -> None:
    for method in ("lerp", "slerp"):
        path = interpolate(np.stack([a, b, a]), 5, method)
        assert path.shape == (9, 4)
        np.testing.assert_allclose(path[[0, 4, 8]], np.stack([a, b, a]), atol=1e-4)


def test_slerp_keeps_to_the_arc_and_lerp_to_the_chord() -> None:
    a, b, half = np.array([1, 0], np.float32), np.array([0, 1], np.float32), np.array([0.5])
    assert np.linalg.norm(slerp(a, b, half)) == pytest.approx(1.0)
    assert np.linalg.norm(lerp(a, b, half)) == pytest.approx(np.sqrt(0.5))


def test_slerp_keeps_to_the_arc_at_a_small_angle() -> None:
    a, b = np.array([1, 0], np.float32), np.array([np.cos(0.05), np.sin(0.05)], np.float32)
    assert np.linalg.norm(slerp(a, b, np.array([0.5]))) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("b", [[2, 0], [-1, 0], [0, 0]], ids=["parallel", "opposite", "zero"])
def test_slerp_is_lerp_where_there_is_no_angle(b: list[float]) -> None:
    a, b_, t = np.array([1, 0], np.float32), np.array(b, np.float32), np.linspace(0, 1, 4)
    np.testing.assert_array_equal(slerp(a, b_, t), lerp(a, b_, t))
