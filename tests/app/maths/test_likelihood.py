"""Likelihoods in numpy against torch's, and against sums that are known exactly."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from app.maths.likelihood import cross_entropy, log_discretized_logistic, log_mean_exp, log_prob, mean_image
from training.fit.likelihood import DiscretizedLogisticLikelihood, GaussianLikelihood

matrices = st.lists(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3), min_size=1, max_size=5)


@given(matrices, st.data())
@settings(deadline=None)
def test_cross_entropy_is_torchs(rows: list[list[float]], data: st.DataObject) -> None:
    targets = data.draw(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3))
    logits, pixels = np.array(rows, np.float32), np.array(targets, np.float32)
    before = logits.copy()
    wide = torch.from_numpy(logits).double()
    theirs = functional.binary_cross_entropy_with_logits(
        wide, torch.from_numpy(pixels).double().expand_as(wide), reduction="none"
    ).sum(dim=1)
    ours = cross_entropy(logits, pixels)
    assert ours.dtype == np.float64
    # A large logit times a target near 1 is rounded to float32.
    assert (np.abs(ours - theirs.numpy()) <= 1e-5 + 1e-6 * np.abs(logits).sum(axis=1)).all()
    assert np.array_equal(logits, before), "the logits are the caller's"
    assert np.array_equal(log_prob("bernoulli", {"logits": logits}, pixels), -ours)


@pytest.mark.parametrize("name", ["gaussian", "discretized_logistic"])
def test_mean_and_scale_mean_what_they_mean_in_torch(name: str) -> None:
    rng = np.random.default_rng(0)
    mean = rng.normal(0.5, 0.5, (5, 3, 2, 4, 4)).astype(np.float32)  # [k, N, C, H, W]
    log_scale = rng.uniform(-6, 2, mean.shape).astype(np.float32)
    pixels = (rng.integers(0, 256, (3, 2, 4, 4)) / 255).astype(np.float32)
    pixels[0, 0, 0, :2] = 0, 1
    likelihood = GaussianLikelihood(1.0) if name == "gaussian" else DiscretizedLogisticLikelihood()
    parameters = {"mean": torch.tensor(mean), "log_scale": torch.tensor(log_scale)}
    theirs = likelihood.log_prob(parameters, torch.tensor(pixels)).numpy()
    flat = {"mean": mean.reshape(5, 3, -1), "log_scale": log_scale.reshape(5, 3, -1)}
    ours = log_prob(name, flat, pixels.reshape(3, -1))
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("mean", [-3.0, 0.0, 0.1, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("log_scale", [-7.0, -4.0, -1.0, 3.0])
def test_the_256_levels_have_all_the_mass(mean: float, log_scale: float) -> None:
    levels = (np.arange(256, dtype=np.float32) / np.float32(255))[:, None]
    like = np.ones_like(levels)
    logs = log_discretized_logistic(np.float32(mean) * like, np.float32(log_scale) * like, levels)
    assert np.isfinite(logs).all()
    assert np.exp(logs).sum() == pytest.approx(1.0, abs=2e-3)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
@settings(deadline=None)
def test_log_mean_exp_is_torchs(values: list[float]) -> None:
    theirs = torch.logsumexp(torch.tensor(values, dtype=torch.float64), dim=0) - np.log(len(values))
    np.testing.assert_allclose(log_mean_exp(np.array([values])), [theirs], rtol=1e-12, atol=1e-12)


def test_log_mean_exp_bears_values_that_exp_does_not() -> None:
    assert log_mean_exp(np.array([[-2000.0, -2000.0], [1e5, -1e5]])).tolist() == pytest.approx(
        [-2000.0, 1e5 - np.log(2)], rel=1e-12
    )


def test_the_mean_of_an_image_is_read_from_whatever_the_decoder_has() -> None:
    image = np.array([[[[0, 51, 255]]]], np.uint8)
    logits = np.array([[[[-200, -1.5, 200]]]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        from_logits = mean_image({"image": image, "logits": logits})
    np.testing.assert_allclose(from_logits, 1 / (1 + np.exp(-logits.astype(np.float64))), atol=1e-7)
    mean = np.array([[[[-0.1, 0.2, 1.1]]]], np.float32)
    assert np.array_equal(mean_image({"image": image, "mean": mean, "log_scale": mean}), mean)
    levels = mean_image({"image": image})
    assert levels.dtype == np.float32
    np.testing.assert_allclose(levels, [[[[0, 0.2, 1]]]])
