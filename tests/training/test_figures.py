"""Every kind of bundle gets the figures that it should, and they show what its graphs compute."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app import gaussian
from app.bundle import read_bundle, read_manifest
from app.errors import BundleError
from tests.training.conftest import TINY, Workshop, copy_of
from training.card import captions
from training.data import DataError, load_dataset
from training.figures import choose, contrast_directory, draw_contrast, draw_encoding, figures, load_scene, read_log
from training.graphs import Graphs

COMMON = {"posterior.png", "reconstructions.png", "samples.png", "training.png"}
PLANE = COMMON | {"manifold.png", "encoding.png", "interpolation.png"}
EXPECTED = {"tiny-ae": COMMON, "tiny-2d": PLANE | {"contrast.png"}, "tiny": PLANE | {"kl.png"}}


def pixels(directory: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO((directory / name).read_bytes())).convert("L"))


def assert_shows(shown: np.ndarray, top: int, left: int, image: np.ndarray) -> None:
    """The image lies there, each of its pixels two wide and high; matplotlib rounds a grey level down."""
    there = shown[top : top + 56, left : left + 56].astype(int)
    assert np.abs(there - np.kron(image, np.ones((2, 2), np.uint8))).max() <= 1


@pytest.mark.parametrize("name", TINY)
def test_a_bundle_gets_the_figures_of_its_kind(finished: Workshop, name: str) -> None:
    drawn = {path.name for path in finished.bundle(name).glob("*.png")}
    assert drawn == EXPECTED[name]
    assert drawn <= set(captions(read_manifest(finished.bundle(name))))


@pytest.mark.parametrize("name", TINY)
def test_figures_are_pictures_of_something(finished: Workshop, name: str) -> None:
    for path in finished.bundle(name).glob("*.png"):
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert 1000 < len(content) < 2_000_000, path
        image = Image.open(io.BytesIO(content))
        image.load()
        assert min(image.size) > 200, path
        assert pixels(path.parent, path.name).std() > 5, path


def test_figures_tell_nothing_of_the_software_that_drew_them(finished: Workshop) -> None:
    for path in finished.models.rglob("*.png"):
        assert "Software" not in Image.open(io.BytesIO(path.read_bytes())).info


@pytest.mark.parametrize("name", ["tiny", "tiny-2d"])
def test_the_samples_are_decoded_prior_draws(finished: Workshop, name: str) -> None:
    directory = finished.bundle(name)
    latent = finished.recipes[name].latent
    images = Graphs(read_bundle(directory)).decode(gaussian.sample_prior(0, 100, (latent,)))[:, 0]
    shown = pixels(directory, "samples.png")
    assert shown.shape == (2 * (10 * 30 - 2),) * 2
    assert np.ptp(images, axis=0).max() > 20, "or one would pass for another"
    for index, image in enumerate(images):
        top, left = (60 * place for place in divmod(index, 10))
        assert_shows(shown, top, left, image)


def test_the_reconstructions_are_below_their_digits(finished: Workshop) -> None:
    directory = finished.bundle("tiny-2d")
    test = load_dataset("mnist", finished.data_dir).test
    rows = [int(np.flatnonzero(test.labels == label)[0]) for label in range(10)]
    graphs = Graphs(read_bundle(directory))
    decoded = graphs.decode(graphs.encode(test.images).mean[rows])
    shown = pixels(directory, "reconstructions.png")
    shown = shown[:, -(2 * (10 * 30 - 2)) :]
    for column in range(10):
        left = 60 * column
        assert_shows(shown, 0, left, test.images[rows[column], 0])
        assert_shows(shown, 60, left, decoded[column, 0])


@pytest.mark.parametrize("name", ["tiny", "tiny-2d"])
def test_the_manifold_is_the_grid_of_the_two_highest_dimensions(finished: Workshop, name: str) -> None:
    directory = finished.bundle(name)
    kl = read_manifest(directory).metrics["kl_per_dimension"]
    dims = sorted(np.argsort(kl)[-2:].tolist())
    latents = np.zeros((400, len(kl)), np.float32)
    latents[:, dims] = gaussian.manifold_grid(20)
    images = Graphs(read_bundle(directory)).decode(latents)[:, 0]
    shown = pixels(directory, "manifold.png")
    shown = shown[: 2 * 560, -2 * 560 :]
    assert np.ptp(images, axis=0).max() > 20, "or one would pass for another"
    for index, image in enumerate(images):
        assert_shows(shown, *(56 * place for place in divmod(index, 20)), image)


def test_the_interpolation_goes_from_digit_to_digit(finished: Workshop) -> None:
    directory = finished.bundle("tiny")
    test, graphs = load_dataset("mnist", finished.data_dir).test, Graphs(read_bundle(directory))
    shown = pixels(directory, "interpolation.png")
    assert shown.shape == (2 * (5 * 30 - 2), 2 * (12 * 30 - 2))
    ends = [int(np.flatnonzero(test.labels == label)[0]) for label in (0, 6)]
    mean = graphs.encode(test.images).mean[ends]
    first, middle, last = graphs.decode(np.stack([mean[0], mean[0] + 5 / 11 * (mean[1] - mean[0]), mean[1]]))
    for column, image in ((0, first), (5, middle), (11, last)):
        assert_shows(shown, 0, 60 * column, image[0])


def test_figures_are_reproducible_and_need_no_metrics(finished: Workshop, exported: Workshop, tmp_path: Path) -> None:
    workshop = copy_of(exported, tmp_path)
    directory = workshop.bundle("tiny-ae")
    paths = figures(directory, data_dir=workshop.data_dir, models=workshop.models)
    assert {path.name for path in paths} == EXPECTED["tiny-ae"]
    assert {path.parent for path in paths} == {directory}
    card = (directory / "README.md").read_text()
    for path in paths:
        assert f"]({path.name})" in card
        assert path.read_bytes() == (finished.bundle("tiny-ae") / path.name).read_bytes()


def test_dimensions_are_chosen_by_kl_and_an_autoencoders_by_variance(exported: Workshop, tmp_path: Path) -> None:
    workshop = copy_of(exported, tmp_path)
    options = {"data_dir": workshop.data_dir, "models": workshop.models}
    path = workshop.bundle("tiny") / "manifest.json"
    test = load_dataset("mnist", workshop.data_dir).test.images
    posterior = Graphs(read_bundle(path.parent)).encode(test)
    np.testing.assert_allclose(load_scene(path.parent, **options).kl, posterior.kl().mean(axis=0), rtol=1e-5)

    manifest = json.loads(path.read_text())
    manifest["metrics"] = {"kl_per_dimension": [0.1, 3.0, 0.0, 2.0]}
    path.write_text(json.dumps(manifest))
    assert load_scene(path.parent, **options).dims == [1, 3]

    scene = load_scene(workshop.bundle("tiny-ae"), **options)
    np.testing.assert_allclose(scene.kl, scene.posterior.mean.var(axis=0), rtol=1e-5)


def test_the_contrast_is_the_newest_version_of_the_named_autoencoder(exported: Workshop, tmp_path: Path) -> None:
    workshop = copy_of(exported, tmp_path)
    versions = workshop.models / "tiny-ae"
    for name in ("9", "10", "x", ".11.partial", "1.old"):
        (versions / name).mkdir()
    assert contrast_directory(workshop.bundle("tiny-2d"), workshop.models) == versions / "10"
    assert contrast_directory(workshop.bundle("tiny"), workshop.models) is None
    shutil.rmtree(versions)
    with pytest.raises(BundleError, match="tiny-ae"):
        contrast_directory(workshop.bundle("tiny-2d"), workshop.models)


def test_the_contrast_shows_the_same_images(exported: Workshop) -> None:
    scene = load_scene(exported.bundle("tiny-2d"), data_dir=exported.data_dir, models=exported.models)
    test = load_dataset("mnist", exported.data_dir).test.images
    expected = Graphs(read_bundle(exported.bundle("tiny-ae"))).encode(test).mean
    assert scene.contrast is not None
    assert np.array_equal(scene.contrast, expected)


def test_a_contrast_may_have_more_than_two_dimensions(exported: Workshop) -> None:
    """It is shown in the same two as the bundle itself."""
    scene = load_scene(exported.bundle("tiny"), data_dir=exported.data_dir, models=exported.models)
    contrast = np.random.default_rng(0).normal(size=scene.posterior.mean.shape).astype(np.float32)
    scene = replace(scene, contrast=contrast)
    assert choose(scene)["contrast.png"] is draw_contrast
    draw_contrast(scene).savefig(io.BytesIO())
    draw_encoding(scene).savefig(io.BytesIO())
    points = draw_encoding(scene).axes[1].collections[0].get_offsets()
    np.testing.assert_allclose(points, contrast[:, scene.dims])


def test_a_contrast_of_another_size_is_refused(exported: Workshop, tmp_path: Path) -> None:
    workshop = copy_of(exported, tmp_path)
    recipe = workshop.bundle("tiny") / "recipe.toml"
    recipe.write_text(recipe.read_text() + '[figures]\ncontrast = "tiny-ae"\n')
    with pytest.raises(BundleError, match=r"tiny-ae.*latent dimensions"):
        load_scene(workshop.bundle("tiny"), data_dir=workshop.data_dir, models=workshop.models)


def test_a_log_is_read_by_column(tmp_path: Path) -> None:
    (tmp_path / "training.csv").write_text("epoch,train/kl\n1,2.5\n2,1.5\n")
    assert read_log(tmp_path / "training.csv") == {"epoch": [1.0, 2.0], "train/kl": [2.5, 1.5]}


@pytest.mark.parametrize("missing", ["training.csv", "recipe.toml"])
def test_a_bundle_that_lacks_a_file_is_refused_by_its_name(exported: Workshop, tmp_path: Path, missing: str) -> None:
    workshop = copy_of(exported, tmp_path)
    (workshop.bundle("tiny-ae") / missing).unlink()
    with pytest.raises(BundleError, match=missing):
        figures(workshop.bundle("tiny-ae"), data_dir=workshop.data_dir, models=workshop.models)


def test_without_data_nothing_is_drawn(exported: Workshop, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train-images"):
        figures(exported.bundle("tiny-ae"), data_dir=tmp_path, models=exported.models)
    assert list(exported.bundle("tiny-ae").glob("*.png")) == []
