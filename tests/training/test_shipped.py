"""The bundles in models/: made by these recipes, measured in full, small, and with a card that tells the truth."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from app.bundle.files import read_bundle, read_manifest
from app.bundle.manifest import Manifest
from app.maths.likelihood import binarize
from tests.conftest import MODELS, Pixels
from tests.training.test_recipe import SHIPPED
from training.bundling.record import read_log, watched
from training.card import captions, write_card
from training.offline import OfflineGraphs
from training.recipe import Recipe, load_recipe

DIRECTORIES = sorted(path.parent for path in MODELS.glob("*/*/manifest.json"))
MANIFESTS = {directory: read_manifest(directory) for directory in DIRECTORIES}
NEWEST = {
    manifest.name: directory for directory, manifest in sorted(MANIFESTS.items(), key=lambda item: item[1].version)
}
STOCHASTIC = [directory for directory in DIRECTORIES if MANIFESTS[directory].stochastic]
OF_DIGITS = [directory for directory in DIRECTORIES if MANIFESTS[directory].training.dataset == "mnist"]
EMOJI = NEWEST["emoji"]
COMMON = {
    f"{name}.png" for name in ("samples", "aggregate", "reconstructions", "interpolation", "training", "posterior")
}
OF_A_POSTERIOR = {"encoding.png", "active_units.png", "rate_distortion.png"}
CALIBRATION = {"percentiles", "prior_norm_quantiles", "mean_norm_quantiles"}
SCORES = {"score_k", "score_quantiles"}


def title(directory: Path) -> str:
    return f"{directory.parent.name}/{directory.name}"


@pytest.fixture(params=DIRECTORIES, ids=title)
def directory(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def recipe(directory: Path) -> Recipe:
    return load_recipe(str(directory / "recipe.toml"))


@pytest.fixture
def manifest(directory: Path) -> Manifest:
    return MANIFESTS[directory]


def test_every_recipe_here_has_its_bundle_as_the_newest_version() -> None:
    assert sorted(NEWEST) == SHIPPED
    for name, directory in NEWEST.items():
        assert load_recipe(str(directory / "recipe.toml")) == load_recipe(name)
        assert MANIFESTS[directory].training.recipe == f"training/recipes/{name}.toml"


def test_a_bundle_is_whole(directory: Path) -> None:
    read_bundle(directory)
    assert [path.name for path in directory.parent.iterdir() if path.name.startswith(".")] == []


def test_the_manifest_follows_from_the_recipe(recipe: Recipe, manifest: Manifest, directory: Path) -> None:
    assert (
        (manifest.name, str(manifest.version))
        == (recipe.name, str(recipe.version))
        == (
            directory.parent.name,
            directory.name,
        )
    )
    assert manifest.description == recipe.description
    assert manifest.latent.shape == (recipe.latent,)
    assert manifest.stochastic == recipe.stochastic
    training = manifest.training
    assert training.dataset == recipe.data.key
    assert training.binarization == recipe.binarization
    assert (training.epochs, training.seed) == (recipe.training.epochs, recipe.seed)
    assert re.fullmatch(r"[0-9a-f]{40}", str(training.commit)), "trained at a commit, with nothing changed"


def test_the_log_has_every_epoch(recipe: Recipe, directory: Path) -> None:
    log = read_log(directory / "training.csv")
    assert log["epoch"] == list(range(1, recipe.training.epochs + 1))
    loss = f"{watched(log)}/negative_iwae" if "test/negative_iwae" in log else f"{watched(log)}/negative_elbo"
    assert log[loss][-1] < log[loss][0]


def test_a_bundle_is_small(directory: Path) -> None:
    assert sum(path.stat().st_size for path in directory.iterdir()) < 16 * 2**20


@pytest.mark.parametrize("stochastic", STOCHASTIC, ids=title)
def test_a_variational_autoencoder_is_measured_in_full(stochastic: Path) -> None:
    metrics, latent = MANIFESTS[stochastic].metrics, MANIFESTS[stochastic].latent.shape[0]
    assert latent is not None
    digits = stochastic in OF_DIGITS
    assert (metrics["split"], metrics["binarization"]) == ("test", "dynamic" if digits else "none")
    assert (metrics["images"], metrics["train_images"]) == ((10_000, 10_000) if digits else (704, 6218))
    assert metrics["k"] == 128
    assert metrics["elbo"] == -metrics["negative_elbo"]
    assert metrics["nll"] < metrics["nll_at_train_k"] < metrics["negative_elbo"]
    assert 0 < metrics["nll_standard_error"] < (1 if digits else metrics["nll"] / 50)
    assert metrics["negative_elbo"] == pytest.approx(metrics["reconstruction"] + metrics["kl"], abs=2e-4)
    assert len(metrics["kl_per_dimension"]) == latent
    assert sum(metrics["kl_per_dimension"]) == pytest.approx(metrics["kl"], abs=0.01)
    assert 2 <= metrics["active_units"] <= latent
    # Neither memorised nor untrained.
    near = 5 if digits else metrics["nll"] / 20
    assert abs(metrics["train_negative_elbo"] - metrics["negative_elbo"]) < near
    assert abs(metrics["train_nll"] - metrics["nll_at_train_k"]) < near
    assert 0 < metrics["aggregate_gap"] < metrics["kl"]
    if "tight" in metrics:
        assert metrics["tight"]["k"] > metrics["k"]
        assert metrics["tight"]["images"] < metrics["images"]


def test_the_default_model_is_good() -> None:
    """The best published of its class, on dynamically binarized digits, is 81.08 (1606.04934)."""
    assert 75 < MANIFESTS[NEWEST["mnist"]].metrics["nll"] < 83.5


def test_every_newer_version_is_better() -> None:
    for name, directory in NEWEST.items():
        versions = [d for d in STOCHASTIC if d.parent.name == name and d != directory]
        for older in versions:
            assert MANIFESTS[directory].metrics["nll"] < MANIFESTS[older].metrics["nll"]


def test_the_autoencoder_has_no_likelihood() -> None:
    metrics = MANIFESTS[NEWEST["digits-ae"]].metrics
    assert metrics["images"] == 10_000
    assert metrics["reconstruction"] > 0
    assert not {"nll", "elbo", "kl"} & set(metrics)


def test_the_bundle_of_colour_is_small_and_measured_in_bits() -> None:
    manifest = MANIFESTS[EMOJI]
    assert sum(path.stat().st_size for path in EMOJI.iterdir()) < 10**7
    assert manifest.image.model_dump() == {
        "channels": 3,
        "height": 64,
        "width": 64,
        "mode": "RGB",
        "background": "#ffffff",
        "resampling": "lanczos",
    }
    assert manifest.metrics["bits_per_dimension"] == pytest.approx(
        manifest.metrics["nll"] / (np.log(2) * 3 * 64 * 64), abs=1e-4
    )
    assert len(manifest.classes) == manifest.arrays["label_means"].shape[0]


@pytest.mark.parametrize("stochastic", [directory for directory in STOCHASTIC if directory in OF_DIGITS], ids=title)
def test_the_metrics_are_the_graphs_own(stochastic: Path, digits: Pixels) -> None:
    """The KL of the first 400 test digits is near that of all 10,000: these graphs were measured, and not others."""
    metrics = MANIFESTS[stochastic].metrics
    kl = OfflineGraphs(read_bundle(stochastic)).encode(binarize(digits[:, None], 0)).kl()
    assert kl.sum(axis=1).mean() == pytest.approx(metrics["kl"], rel=0.05)
    np.testing.assert_allclose(kl.mean(axis=0), metrics["kl_per_dimension"], atol=0.4)


@pytest.mark.parametrize("directory", NEWEST.values(), ids=title, indirect=True)
def test_the_server_can_tell_percentiles(directory: Path, manifest: Manifest) -> None:
    arrays = read_bundle(directory).arrays
    assert set(arrays) >= CALIBRATION | (SCORES if manifest.stochastic else set())
    for name in (CALIBRATION | SCORES) & set(arrays) - {"score_k"}:
        assert (np.diff(arrays[name]) >= 0).all()
    if manifest.stochastic:
        assert arrays["score_k"].tolist() == [1, 16, 128]
        # The mean lies between the quartiles, and more draws score higher.
        low, high = arrays["score_quantiles"][:, 250], arrays["score_quantiles"][:, 750]
        assert low[2] < -manifest.metrics["nll"] < high[2]
        assert (np.diff(arrays["score_quantiles"][:, 500]) > 0).all()


def test_the_card_is_what_the_manifest_and_the_figures_make_of_it(directory: Path, tmp_path: Path) -> None:
    copy = tmp_path / "1"
    shutil.copytree(directory, copy)
    write_card(copy)
    assert (copy / "README.md").read_text() == (directory / "README.md").read_text()
    assert "Not evaluated" not in (copy / "README.md").read_text()


def test_the_card_tells_the_metrics(directory: Path) -> None:
    metrics, card = read_manifest(directory).metrics, (directory / "README.md").read_text()
    for name in ("nll", "negative_elbo", "kl", "reconstruction") if "nll" in metrics else ("reconstruction",):
        assert f"{metrics[name]:.2f}" in card


def test_the_card_shows_every_figure_and_every_figure_is_there(recipe: Recipe, directory: Path) -> None:
    expected = COMMON | (OF_A_POSTERIOR if recipe.stochastic else set())
    if recipe.stochastic:
        expected |= {"manifold.png", "contrast.png"} if recipe.latent == 2 else {"traversals.png"}
    shown = set(re.findall(r"!\[.+?\]\((.+?)\)", (directory / "README.md").read_text()))
    assert shown == expected == {path.name for path in directory.glob("*.png")}
    assert expected <= set(captions(read_manifest(directory)))


@pytest.mark.parametrize("directory", OF_DIGITS, ids=title)
def test_each_label_has_about_a_tenth_of_the_mixture(directory: Path) -> None:
    arrays = read_bundle(directory).arrays
    weights = np.bincount(arrays["aggregate_labels"], arrays["aggregate_weights"])
    # Shares of the digits among the 60,000 training images.
    shares = np.array([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]) / 60_000
    np.testing.assert_allclose(weights, shares, atol=1e-5)
