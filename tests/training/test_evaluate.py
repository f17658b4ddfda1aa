"""Metrics against torch, against each other, and against likelihoods that are known exactly."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.progress import Progress
from torch.distributions import Bernoulli, Independent, Normal
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from app.bundle.files import read_bundle, read_manifest
from app.errors import BundleError
from app.maths.gaussian import Posterior, normal_draws, standard_normal
from app.maths.likelihood import binarize
from tests.conftest import ROOT, Pixels
from tests.training.conftest import TINY, Workshop, copy_of
from training import evaluate as module
from training.data import idx, load_dataset
from training.errors import DataError
from training.evaluate import MeasuredTerms, evaluate, measure_terms, metric_table, pixels, prepare
from training.offline import OfflineGraphs

QUIET = Progress(disable=True)


class Known:
    """In place of a bundle's graphs: a posterior and logits that one chooses."""

    manifest = SimpleNamespace(likelihood="bernoulli")

    def __init__(self, mean: float, log_std: float, logits: Callable[[np.ndarray], np.ndarray]) -> None:
        self.mean, self.log_std, self.function = mean, log_std, logits

    def encode(self, images: Pixels) -> Posterior:
        shape = (len(images), 1)
        return Posterior(np.full(shape, self.mean, np.float32), np.full(shape, self.log_std, np.float32))

    def parameters(self, latents: np.ndarray) -> dict[str, np.ndarray]:
        return {"logits": self.function(latents).astype(np.float32)}

    def decode(self, latents: np.ndarray) -> Pixels:
        return np.zeros((len(latents), 6), np.uint8)


def terms(graphs: Any, images: Pixels, k: int, seed: int = 0) -> MeasuredTerms:
    return measure_terms(graphs, images, k=k, seed=seed, progress=QUIET, name="test")


def bound(terms: MeasuredTerms) -> np.ndarray:
    """The bound with all the draws."""
    return terms.bounds[max(terms.bounds)]


@pytest.fixture(scope="module")
def graphs(exported: Workshop) -> OfflineGraphs:
    return OfflineGraphs(read_bundle(exported.bundle("tiny-2d")))


@pytest.fixture
def binary(digits: Pixels) -> Pixels:
    return binarize(digits[:40, None], seed=0)


def test_pixels_are_rows_in_the_unit_interval() -> None:
    images = np.array([0, 51, 102, 255], np.uint8).reshape(2, 1, 2, 1)
    result = pixels(images)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, [[0.0, 0.2], [0.4, 1.0]], rtol=1e-6)


# Draws.


def test_draws_depend_on_seed_and_row_alone() -> None:
    draws = normal_draws(4, range(0, 10), 6, (3,))
    assert (draws.dtype, draws.shape) == (np.float32, (10, 6, 3))
    assert np.array_equal(normal_draws(4, range(7, 9), 6, (3,)), draws[7:9])
    assert np.array_equal(draws[:, 0], standard_normal(4, 10, (3,)))
    assert not np.array_equal(normal_draws(5, range(0, 10), 6, (3,)), draws)


def test_draws_are_standard_normal() -> None:
    draws = normal_draws(0, range(0, 100), 200, (2,))
    assert draws.mean() == pytest.approx(0.0, abs=0.02)
    assert draws.std() == pytest.approx(1.0, abs=0.02)
    assert np.corrcoef(draws[:, 0, 0], draws[:, 1, 0])[0, 1] == pytest.approx(0.0, abs=0.35)


def test_pixels_and_latents_are_drawn_apart() -> None:
    """Both come from the same seed and row: from the same stream, white pixels would go with short latents."""
    grey = np.full((2000, 1, 1, 1), 128, np.uint8)
    binary, latents = binarize(grey, seed=0).ravel() / 255, standard_normal(0, 2000, (1,)).ravel()
    assert np.corrcoef(binary, latents)[0, 1] == pytest.approx(0.0, abs=0.1)
    assert np.corrcoef(binary, np.abs(latents))[0, 1] == pytest.approx(0.0, abs=0.1)


# Bounds.


def test_the_terms_are_those_of_torch_distributions(exported: Workshop, graphs: OfflineGraphs, binary: Pixels) -> None:
    k = 3
    ours = terms(graphs, binary, k, seed=5)
    posterior = graphs.encode(binary)
    q = Independent(Normal(torch.tensor(posterior.mean), torch.tensor(posterior.log_std).exp()), 1)
    p = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    eps = torch.tensor(normal_draws(5, range(len(binary)), k, (2,)))
    z = torch.tensor(posterior.mean)[:, None] + torch.tensor(posterior.log_std).exp()[:, None] * eps
    logits = torch.tensor(graphs.parameters(z.reshape(-1, 2).numpy())["logits"]).reshape(len(binary), k, -1)
    x = torch.tensor(binary.reshape(len(binary), 1, -1) / np.float32(255))
    log_p_x = Independent(Bernoulli(logits=logits), 1).log_prob(x)
    log_w = (log_p_x + p.log_prob(z) - q.expand([k, len(binary)]).log_prob(z.swapaxes(0, 1)).T).double()
    np.testing.assert_allclose(bound(ours), torch.logsumexp(log_w, dim=1) - np.log(k), rtol=1e-4)
    np.testing.assert_allclose(ours.reconstruction, -log_p_x.mean(dim=1), rtol=1e-4)
    np.testing.assert_allclose(ours.kl.sum(axis=1), torch.distributions.kl_divergence(q, p), rtol=1e-4)
    assert np.array_equal(ours.posterior.mean, posterior.mean)


def test_one_draw_is_the_elbos_own_estimate(graphs: OfflineGraphs, binary: Pixels) -> None:
    """With k = 1 the bound has the KL's one-draw estimate, (log q - log p)(z), in place of its closed form."""
    ours = terms(graphs, binary, k=1)
    posterior = graphs.encode(binary)
    eps = standard_normal(0, len(binary), (2,)).astype(np.float64)
    z = posterior.mean + np.exp(posterior.log_std) * eps
    log_q_minus_log_p = (-0.5 * eps**2 - posterior.log_std + 0.5 * z**2).sum(axis=1)
    np.testing.assert_allclose(bound(ours), -ours.reconstruction - log_q_minus_log_p, rtol=1e-4)


def test_the_elbo_is_reconstruction_and_kl(graphs: OfflineGraphs, binary: Pixels) -> None:
    ours = terms(graphs, binary, k=2)
    assert ours.negative_elbo == pytest.approx(float((ours.reconstruction + ours.kl.sum(axis=1)).mean()))


def test_more_draws_tighten_the_bound(graphs: OfflineGraphs, binary: Pixels) -> None:
    few = [terms(graphs, binary[:15], k) for k in (1, 8, 64)]
    bounds = [float(bound(term).mean()) for term in few]
    assert bounds[0] + 1 < bounds[1] < bounds[2] - 0.5
    assert -few[2].negative_elbo < bounds[2] - 1


LIGHT = np.random.default_rng(2).normal(size=(1, 6))
"""Logits of six pixels."""
FOUR = np.random.default_rng(3).integers(0, 2, (4, 1, 2, 3)).astype(np.uint8) * 255


def log_bernoulli(images: Pixels, logits: np.ndarray) -> np.ndarray:
    """log p(x | logits), `[N, logits]`, written out."""
    x, probability = images.reshape(len(images), 1, -1) / 255, 1 / (1 + np.exp(-logits))
    return np.log(np.where(x == 1, probability, 1 - probability)).sum(axis=-1)


@pytest.mark.parametrize("k", [1, 2, 50])
def test_a_decoder_that_ignores_its_latents_has_an_exact_likelihood(k: int) -> None:
    graphs = Known(0.0, 0.0, lambda z: np.tile(LIGHT, (len(z), 1)))
    ours = terms(graphs, FOUR, k)
    exact = log_bernoulli(FOUR, LIGHT)[:, 0]
    np.testing.assert_allclose(bound(ours), exact, rtol=1e-5)
    np.testing.assert_allclose(-ours.reconstruction, exact, rtol=1e-5)
    assert not ours.kl.any()


def test_a_wrong_posterior_costs_the_elbo_its_kl_and_the_bound_less_and_less() -> None:
    graphs = Known(0.5, 0.2, lambda z: np.tile(LIGHT, (len(z), 1)))
    exact = log_bernoulli(FOUR, LIGHT)[:, 0]
    few, many = (terms(graphs, FOUR, k) for k in (4, 20_000))
    kl = 0.5 * (0.25 + np.exp(0.4) - 0.4 - 1)
    assert few.negative_elbo == pytest.approx(-exact.mean() + kl, rel=1e-5)
    np.testing.assert_allclose(bound(many), exact, atol=0.05)
    assert bound(few).mean() < exact.mean()


def test_one_latent_dimension_agrees_with_quadrature() -> None:
    """log p(x) = log of the integral of p(x|z) p(z), and the ELBO an integral under q: neither draws anything."""
    slope = np.array([[2.0, -1.5, 0.5, 1.0, -0.7, 0.0]])
    graphs = Known(0.4, -0.6, lambda z: z * slope + LIGHT)
    z = np.linspace(-12, 12, 20_001)[:, None]
    step = z[1, 0] - z[0, 0]
    log_p_x_z = log_bernoulli(FOUR, z * slope + LIGHT)
    prior = np.exp(-0.5 * z[:, 0] ** 2) / np.sqrt(2 * np.pi)
    std = np.exp(-0.6)
    q = np.exp(-0.5 * ((z[:, 0] - 0.4) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    log_p_x = np.log((np.exp(log_p_x_z) * prior).sum(axis=1) * step)
    reconstruction = -(log_p_x_z * q).sum(axis=1) * step
    ours = terms(graphs, FOUR, k=40_000)
    np.testing.assert_allclose(bound(ours), log_p_x, atol=0.03)
    np.testing.assert_allclose(ours.reconstruction, reconstruction, atol=0.03)
    np.testing.assert_allclose(ours.kl[:, 0], 0.5 * (0.16 + np.exp(-1.2) + 1.2 - 1), rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 40, 10_000])
def test_how_many_rows_run_at_a_time_changes_nothing(
    graphs: OfflineGraphs, binary: Pixels, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    expected = terms(graphs, binary, k=5)
    monkeypatch.setattr(module, "ROWS", rows)
    ours = terms(graphs, binary, k=5)
    np.testing.assert_allclose(bound(ours), bound(expected), rtol=1e-9)
    np.testing.assert_allclose(ours.reconstruction, expected.reconstruction, rtol=1e-9)
    assert np.array_equal(ours.squared_error, expected.squared_error)


# Whole bundles.


@pytest.mark.parametrize("name", ["tiny", "tiny-2d"])
def test_a_manifest_holds_every_metric(finished: Workshop, name: str) -> None:
    metrics = read_manifest(finished.bundle(name)).metrics
    latent = finished.recipes[name].latent
    assert (metrics["split"], metrics["binarization"], metrics["images"]) == ("test", "dynamic", 100)
    assert (metrics["k"], metrics["seed"], metrics["train_images"]) == (3, 0, 300)
    assert metrics["elbo"] == -metrics["negative_elbo"]
    assert metrics["negative_elbo"] == pytest.approx(metrics["reconstruction"] + metrics["kl"], abs=2e-4)
    assert len(metrics["kl_per_dimension"]) == latent
    assert sum(metrics["kl_per_dimension"]) == pytest.approx(metrics["kl"], abs=1e-4 * (latent + 1))
    assert min(metrics["kl_per_dimension"]) >= 0
    assert 0 < metrics["nll"] <= metrics["negative_elbo"]
    assert 0 < metrics["nll_standard_error"] < 50
    assert 0 <= metrics["active_units"] <= latent
    assert metrics["train_negative_elbo"] == pytest.approx(metrics["negative_elbo"], rel=0.2)
    assert metrics["train_k"] == 3
    assert metrics["nll_at_train_k"] == metrics["nll"]
    assert metrics["train_nll"] == pytest.approx(metrics["nll"], rel=0.2)
    assert 0 < metrics["mean_squared_error"] < 1
    assert len(metrics["variance_per_dimension"]) == latent
    assert "bits_per_dimension" not in metrics


@pytest.mark.parametrize("name", ["tiny", "tiny-2d"])
def test_metrics_are_averages_of_the_terms(finished: Workshop, name: str) -> None:
    metrics = read_manifest(finished.bundle(name)).metrics
    dataset, graphs = (
        load_dataset(idx.IdxOptions(), finished.data_dir),
        OfflineGraphs(read_bundle(finished.bundle(name))),
    )
    test = terms(graphs, binarize(dataset.test.images, 0), k=3)
    train = terms(graphs, binarize(dataset.train.images, 0), k=metrics["train_k"])
    assert metrics["nll"] == pytest.approx(-bound(test).mean(), abs=1e-4)
    assert metrics["nll_standard_error"] == pytest.approx(bound(test).std() / 10, abs=1e-4)
    assert metrics["kl_per_dimension"] == pytest.approx(test.kl.mean(axis=0).tolist(), abs=1e-4)
    assert metrics["reconstruction"] == pytest.approx(test.reconstruction.mean(), abs=1e-4)
    assert metrics["train_negative_elbo"] == pytest.approx(train.negative_elbo, abs=1e-4)
    assert metrics["active_units"] == (test.posterior.mean.var(axis=0) > 0.01).sum()


def test_an_autoencoder_has_a_reconstruction_and_no_likelihood(finished: Workshop) -> None:
    metrics = read_manifest(finished.bundle("tiny-ae")).metrics
    assert set(metrics) == {
        *("split", "binarization", "images", "reconstruction", "mean_squared_error", "train_reconstruction"),
        *("train_images", "aggregate_gap"),
    }
    assert metrics["binarization"] == "none"
    dataset, graphs = (
        load_dataset(idx.IdxOptions(), finished.data_dir),
        OfflineGraphs(read_bundle(finished.bundle("tiny-ae"))),
    )
    for split, name in ((dataset.test, "reconstruction"), (dataset.train, "train_reconstruction")):
        logits = torch.tensor(graphs.parameters(graphs.encode(split.images).mean)["logits"])
        grey = torch.tensor(split.images) / 255
        expected = functional.binary_cross_entropy_with_logits(logits, grey, reduction="sum") / len(grey)
        assert metrics[name] == pytest.approx(expected.item(), rel=1e-5)


def test_an_autoencoder_of_binary_pixels_is_measured_on_binary_pixels(exported: Workshop, tmp_path: Path) -> None:
    workshop = copy_of(exported, tmp_path)
    path = workshop.bundle("tiny-ae") / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["training"]["binarization"] = "dynamic"
    path.write_text(json.dumps(manifest))
    metrics = evaluate(path.parent, data_dir=workshop.data_dir)
    assert metrics["binarization"] == "dynamic"
    binary = binarize(load_dataset(idx.IdxOptions(), workshop.data_dir).test.images, 0)
    graphs = OfflineGraphs(read_bundle(path.parent))
    expected = terms(graphs, binary, k=1).reconstruction.mean()
    assert metrics["reconstruction"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", TINY)
def test_the_same_seed_gives_the_same_metrics(finished: Workshop, name: str) -> None:
    written = read_manifest(finished.bundle(name)).metrics
    again = evaluate(finished.bundle(name), data_dir=finished.data_dir, k=3, write=False)
    assert again == written
    if name != "tiny-ae":
        other = evaluate(finished.bundle(name), data_dir=finished.data_dir, k=3, seed=1, write=False)
        assert other["nll"] != written["nll"]
        assert other["nll"] == pytest.approx(written["nll"], rel=0.1)


def test_a_whole_measurement_is_written_into_manifest_and_card(exported: Workshop, tmp_path: Path) -> None:
    directory = copy_of(exported, tmp_path).bundle("tiny-2d")
    before = read_manifest(directory)
    assert "Not evaluated" in (directory / "README.md").read_text()
    metrics = evaluate(directory, data_dir=exported.data_dir, k=2)
    after = read_manifest(directory)
    added = {"percentiles", "prior_norm_quantiles", "mean_norm_quantiles", "score_k", "score_quantiles"}
    assert set(after.arrays) == set(before.arrays) | added
    assert after == before.model_copy(update={"metrics": metrics, "arrays": after.arrays})
    arrays = read_bundle(directory).arrays  # every hash still holds
    assert arrays["score_k"].tolist() == [1]  # 2 is not one of those that are calibrated
    card = (directory / "README.md").read_text()
    assert f"{metrics['nll']:.2f}" in card
    assert "k = 2" in card
    assert [path.name for path in directory.glob(".*")] == []


@pytest.mark.parametrize("options", [{"images": 99}, {"images": 1}, {"write": False}], ids=str)
def test_any_other_measurement_writes_nothing(exported: Workshop, tmp_path: Path, options: dict[str, Any]) -> None:
    directory = copy_of(exported, tmp_path).bundle("tiny-2d")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    metrics = evaluate(directory, data_dir=exported.data_dir, k=2, **options)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert metrics["images"] == options.get("images", 100)


def test_a_tighter_bound_of_a_part_is_kept_beside_the_rest(finished: Workshop, tmp_path: Path) -> None:
    directory = copy_of(finished, tmp_path).bundle("tiny-2d")
    before, whole_metrics = read_bundle(directory).arrays, read_manifest(directory).metrics
    metrics = evaluate(directory, data_dir=finished.data_dir, k=20, images=10, seed=4)
    kept = {name: metrics[name] for name in ("nll", "nll_standard_error", "k", "images", "seed")}
    assert (kept["k"], kept["images"], kept["seed"]) == (20, 10, 4)
    assert read_manifest(directory).metrics == whole_metrics | {"tight": kept}
    assert set(read_bundle(directory).arrays) == set(before)
    evaluate(directory, data_dir=finished.data_dir, k=3)
    assert read_manifest(directory).metrics == whole_metrics | {"tight": kept}, "measured anew, it stays"


def test_static_pixels_are_those_of_the_training(exported: Workshop, tmp_path: Path, digits: Pixels) -> None:
    workshop = copy_of(exported, tmp_path)
    path = workshop.bundle("tiny") / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["training"]["binarization"] = "static"
    path.write_text(json.dumps(manifest))
    images = digits[:5, None]
    for seed in (0, 1):
        assert np.array_equal(prepare(images, read_manifest(path.parent), seed), binarize(images, 7))
    metrics = evaluate(path.parent, data_dir=workshop.data_dir, k=2)
    assert metrics["binarization"] == "static"
    # The server has no such draws: its scores are calibrated on thresholds.
    test = load_dataset(idx.IdxOptions(), workshop.data_dir).test.images
    scores = terms(OfflineGraphs(read_bundle(path.parent)), np.where(test < 128, 0, 255).astype(np.uint8), k=2).bounds[
        1
    ]
    median = read_bundle(path.parent).arrays["score_quantiles"][0, 500]
    assert median == pytest.approx(np.median(scores), rel=1e-6)


def test_a_measurement_that_fails_leaves_the_bundle_as_it_was(
    exported: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = copy_of(exported, tmp_path).bundle("tiny-2d")
    before = {path.name: path.read_bytes() for path in directory.iterdir()}

    def fail(directory: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(module, "write_card", fail)
    with pytest.raises(OSError, match="no space"):
        evaluate(directory, data_dir=exported.data_dir, k=1)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert [path.name for path in directory.parent.iterdir()] == ["2"]


def test_a_part_is_the_first_images(exported: Workshop) -> None:
    metrics = evaluate(exported.bundle("tiny-2d"), data_dir=exported.data_dir, k=2, images=10)
    images = load_dataset(idx.IdxOptions(), exported.data_dir).test.images[:10]
    graphs = OfflineGraphs(read_bundle(exported.bundle("tiny-2d")))
    assert metrics["nll"] == pytest.approx(-bound(terms(graphs, binarize(images, 0), k=2)).mean(), abs=1e-4)
    assert metrics["train_images"] == 10


def test_more_images_than_there_are_is_all_of_them(exported: Workshop) -> None:
    metrics = evaluate(exported.bundle("tiny"), data_dir=exported.data_dir, k=1, images=10_000, write=False)
    assert (metrics["images"], metrics["train_images"]) == (100, 300)


class NoTorch(TorchDispatchMode):
    """Whatever torch computes is an error."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"torch computes {function}")


@pytest.mark.parametrize("name", TINY)
def test_torch_computes_nothing_of_it(exported: Workshop, name: str) -> None:
    with pytest.raises(AssertionError, match="torch computes"), NoTorch():
        torch.zeros(1)
    with NoTorch():
        evaluate(exported.bundle(name), data_dir=exported.data_dir, k=1, images=5)


def test_measuring_and_drawing_import_no_torch() -> None:
    program = "import sys; import training.evaluate, training.figures; print({'torch', 'lightning'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert answer.stdout.strip() == "set()", answer.stderr


def test_a_damaged_bundle_is_refused(exported: Workshop, tmp_path: Path) -> None:
    directory = copy_of(exported, tmp_path).bundle("tiny")
    with (directory / "decoder.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"decoder\.onnx"):
        evaluate(directory, data_dir=exported.data_dir, k=1)


def test_without_data_nothing_is_measured(exported: Workshop, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train-images"):
        evaluate(exported.bundle("tiny"), data_dir=tmp_path)


@pytest.mark.parametrize("text", ["", "data = 3", "[data]\ndataset = 'fashion'", "\0"])
def test_a_bundle_that_does_not_say_its_data_is_refused(exported: Workshop, tmp_path: Path, text: str) -> None:
    directory = tmp_path / "1"
    shutil.copytree(exported.bundle("tiny"), directory)
    (directory / "recipe.toml").write_text(text)
    with pytest.raises(DataError, match=r"recipe\.toml does not say"):
        evaluate(directory, data_dir=exported.data_dir, k=1)


def test_the_table_shows_the_cards_rows(finished: Workshop) -> None:
    manifest = read_manifest(finished.bundle("tiny-2d"))
    console = Console(width=200)
    with console.capture() as captured:
        console.print(metric_table(manifest.metrics, manifest))
    text = captured.get()
    assert "tiny-2d 2" in text
    assert f"{manifest.metrics['nll']:.2f}" in text
    assert "dynamically binarized" in text
