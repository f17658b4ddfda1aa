"""The bundles in models/: made by these recipes, measured in full, small, and with a card that tells the truth."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from app.bundle import read_bundle, read_manifest
from tests.conftest import MODELS, Pixels
from tests.training.test_recipe import SHIPPED
from training.card import captions, write_card
from training.evaluate import binarize
from training.figures import read_log
from training.graphs import Graphs
from training.recipe import Recipe, load_recipe
from training.train import COLUMNS

VARIATIONAL = [name for name in SHIPPED if load_recipe(name).stochastic]
FIGURES = {
    "mnist": {"kl.png"},
    "mnist-2d": {"contrast.png"},
    "digits-ae": set[str](),
}
COMMON = {"posterior.png", "reconstructions.png", "samples.png", "training.png"}
OF_A_POSTERIOR = {"manifold.png", "encoding.png", "interpolation.png"}


@pytest.fixture(params=SHIPPED)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load_recipe(request.param)


@pytest.fixture
def directory(recipe: Recipe) -> Path:
    return MODELS / recipe.name / str(recipe.version)


def test_every_bundle_has_its_recipe_here() -> None:
    assert sorted(path.parent.parent.name for path in MODELS.glob("*/*/manifest.json")) == SHIPPED


def test_a_bundle_is_whole(directory: Path) -> None:
    read_bundle(directory)
    assert [path.name for path in directory.parent.iterdir() if path.name.startswith(".")] == []


def test_a_bundles_recipe_is_the_one_here(recipe: Recipe, directory: Path) -> None:
    assert load_recipe(str(directory / "recipe.toml")) == recipe


def test_the_manifest_follows_from_the_recipe(recipe: Recipe, directory: Path) -> None:
    manifest = read_manifest(directory)
    assert (manifest.name, manifest.version) == (recipe.name, recipe.version)
    assert manifest.description == recipe.description
    assert manifest.latent.shape == (recipe.latent,)
    assert manifest.stochastic == recipe.stochastic
    training = manifest.training.model_dump()
    commit = training.pop("commit")
    assert training == {
        "dataset": recipe.data.dataset,
        "binarization": recipe.binarization,
        "recipe": f"training/recipes/{recipe.name}.toml",
        "epochs": recipe.training.epochs,
        "seed": recipe.seed,
    }
    assert re.fullmatch(r"[0-9a-f]{40}", str(commit)), "trained at a commit, with nothing changed"


def test_the_log_has_every_epoch(recipe: Recipe, directory: Path) -> None:
    log = read_log(directory / "training.csv")
    assert list(log) == ["epoch", *COLUMNS]
    assert log["epoch"] == list(range(1, recipe.training.epochs + 1))
    assert log["test/negative_elbo"][-1] < log["test/negative_elbo"][0]


def test_a_bundle_is_small(directory: Path) -> None:
    assert sum(path.stat().st_size for path in directory.iterdir()) < 16 * 2**20


@pytest.mark.parametrize("name", VARIATIONAL)
def test_a_variational_autoencoder_is_measured_in_full(name: str) -> None:
    recipe, metrics = load_recipe(name), read_manifest(MODELS / name / "1").metrics
    assert (metrics["split"], metrics["binarization"]) == ("test", "dynamic")
    assert (metrics["images"], metrics["train_images"]) == (10_000, 10_000)
    assert metrics["k"] >= 100
    assert metrics["elbo"] == -metrics["negative_elbo"]
    assert metrics["nll"] < metrics["negative_elbo"]
    assert 0 < metrics["nll_standard_error"] < 1
    assert metrics["negative_elbo"] == pytest.approx(metrics["reconstruction"] + metrics["kl"], abs=2e-4)
    assert len(metrics["kl_per_dimension"]) == recipe.latent
    assert sum(metrics["kl_per_dimension"]) == pytest.approx(metrics["kl"], abs=0.01)
    assert 2 <= metrics["active_units"] <= recipe.latent
    # Neither memorised nor untrained.
    assert abs(metrics["train_negative_elbo"] - metrics["negative_elbo"]) < 5


def test_the_default_model_is_good() -> None:
    """IWAE bounds of convolutional VAEs on dynamically binarized MNIST lie near 80 (Burda et al.: 82.9 to 86.8)."""
    assert 75 < read_manifest(MODELS / "mnist" / "1").metrics["nll"] < 86


def test_the_autoencoder_has_no_likelihood() -> None:
    metrics = read_manifest(MODELS / "digits-ae" / "1").metrics
    assert metrics["images"] == 10_000
    assert metrics["reconstruction"] > 0
    assert not {"nll", "elbo", "kl"} & set(metrics)


@pytest.mark.parametrize("name", VARIATIONAL)
def test_the_metrics_are_the_graphs_own(name: str, digits: Pixels) -> None:
    """The KL of the first 400 test digits is near that of all 10,000: these graphs were measured, and not others."""
    directory = MODELS / name / "1"
    kl = Graphs(read_bundle(directory)).encode(binarize(digits[:, None], 0)).kl()
    assert kl.sum(axis=1).mean() == pytest.approx(read_manifest(directory).metrics["kl"], rel=0.05)
    np.testing.assert_allclose(kl.mean(axis=0), read_manifest(directory).metrics["kl_per_dimension"], atol=0.4)


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
    expected = COMMON | FIGURES[recipe.name] | (OF_A_POSTERIOR if recipe.stochastic else set())
    shown = set(re.findall(r"!\[.+?\]\((.+?)\)", (directory / "README.md").read_text()))
    assert shown == expected == {path.name for path in directory.glob("*.png")}
    assert expected <= set(captions(read_manifest(directory)))


def test_each_label_has_about_a_tenth_of_the_mixture(directory: Path) -> None:
    arrays = read_bundle(directory).arrays
    weights = np.bincount(arrays["aggregate_labels"], arrays["aggregate_weights"])
    # Shares of the digits among the 60,000 training images.
    shares = np.array([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]) / 60_000
    np.testing.assert_allclose(weights, shares, atol=1e-5)
