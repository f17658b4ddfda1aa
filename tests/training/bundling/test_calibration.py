"""Quantile tables against distributions that are known."""

import numpy as np
import pytest

from training.bundling.calibration import latent_quantiles, score_quantiles


def test_the_priors_norm_is_chi_square() -> None:
    tables = latent_quantiles(np.zeros((1, 5), np.float32))
    draws = np.square(np.random.default_rng(0).normal(size=(200_000, 5))).sum(axis=1)
    for percent in (1, 10, 50, 90, 99):
        quantile = np.interp(percent, tables["percentiles"], tables["prior_norm_quantiles"])
        assert (draws < quantile).mean() == pytest.approx(percent / 100, abs=0.005)
    assert tables["prior_norm_quantiles"][0] == 0
    assert np.isfinite(tables["prior_norm_quantiles"]).all()


def test_the_means_norm_is_the_images_own() -> None:
    means = np.random.default_rng(1).normal(size=(5000, 3)).astype(np.float32)
    tables = latent_quantiles(means)
    squares = np.square(means).sum(axis=1)
    assert tables["mean_norm_quantiles"][[0, -1]].tolist() == pytest.approx([squares.min(), squares.max()], rel=1e-6)
    assert tables["mean_norm_quantiles"][500] == pytest.approx(np.median(squares), rel=1e-4)


def test_each_number_of_draws_has_its_own_scores() -> None:
    bounds = {16: np.arange(101.0) - 200, 1: np.arange(101.0) - 300}
    tables = score_quantiles(bounds)
    assert tables["score_k"].tolist() == [1, 16]
    assert tables["score_quantiles"].shape == (2, 1001)
    np.testing.assert_allclose(tables["score_quantiles"][:, [0, 500, 1000]], [[-300, -250, -200], [-200, -150, -100]])


def test_tables_rise_and_have_the_contracts_types() -> None:
    rng = np.random.default_rng(2)
    tables = latent_quantiles(rng.normal(size=(50, 2)).astype(np.float32)) | score_quantiles({1: rng.normal(size=50)})
    for name, table in tables.items():
        assert table.dtype == (np.int64 if name == "score_k" else np.float32)
        assert name == "score_k" or (np.diff(table) >= 0).all()
