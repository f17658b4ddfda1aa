"""What the figures are drawn from: the dimensions and images that they show, and the autoencoder beside."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from app.bundle.files import read_bundle
from app.errors import BundleError
from tests.training.conftest import Workshop, copy_of
from tests.training.linear import TEST_IMAGES, Linear
from training.data import load_dataset, read_options
from training.figures.scene import Scene, contrast_directory, load_scene
from training.offline import OfflineGraphs


def load(folder: Path, linear: Linear) -> Scene:
    return load_scene(linear.write(folder), data_dir=folder, models=folder / "models")


def change_metrics(directory: Path, **metrics: list[float]) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metrics": metrics}))


def test_dimensions_are_ordered_by_the_kl_that_was_measured(tmp_path: Path) -> None:
    directory = Linear(latent=4).write(tmp_path)
    options = {"data_dir": tmp_path, "models": tmp_path / "models"}
    test = load_dataset(read_options(directory), tmp_path).test.images
    posterior = OfflineGraphs(read_bundle(directory)).encode(test)
    scene = load_scene(directory, **options)
    np.testing.assert_allclose(scene.kl, posterior.kl().mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(scene.variance, posterior.mean.var(axis=0), rtol=1e-5)

    change_metrics(directory, kl_per_dimension=[0.1, 3.0, 0.0, 2.0], variance_per_dimension=[0.5, 1.0, 0.0, 0.9])
    scene = load_scene(directory, **options)
    assert (scene.order, scene.dims) == ([1, 3, 0, 2], [1, 3])
    np.testing.assert_allclose(scene.variance, [0.5, 1.0, 0.0, 0.9])


def test_an_autoencoders_dimensions_are_ordered_by_variance(tmp_path: Path) -> None:
    scene = load(tmp_path, Linear(stochastic=False))
    np.testing.assert_allclose(scene.kl, scene.posterior.mean.var(axis=0), rtol=1e-5)


def test_examples_take_turns_among_the_classes(tmp_path: Path) -> None:
    scene = load(tmp_path, Linear(labels=(7, 2, 2)))
    rows = scene.examples(5)
    assert scene.test.labels is not None
    assert scene.test.labels[rows].tolist() == [2, 7, 2, 7, 2]
    assert rows == [1, 0, 2, 3, 4]
    assert scene.specimen == rows[2]
    assert scene.class_names == ["2", "7"]


def test_without_labels_examples_are_the_first_images(tmp_path: Path) -> None:
    scene = load(tmp_path, Linear(labels=None))
    assert scene.examples(5) == [0, 1, 2, 3, 4]
    assert scene.examples(1000) == list(range(TEST_IMAGES))
    assert scene.class_names == []


def test_classes_have_the_data_sets_names(tmp_path: Path) -> None:
    directory = Linear(labels=(0, 7, 200)).write(tmp_path)
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["training"]["dataset"] = "fashion-mnist"
    path.write_text(json.dumps(manifest))
    scene = load_scene(directory, data_dir=tmp_path, models=tmp_path / "models")
    assert scene.class_names == ["T-shirt", "sneaker", "200"]


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
    directory = exported.bundle("tiny-2d")
    scene = load_scene(directory, data_dir=exported.data_dir, models=exported.models)
    test = load_dataset(read_options(directory), exported.data_dir).test.images
    expected = OfflineGraphs(read_bundle(exported.bundle("tiny-ae"))).encode(test).mean
    assert scene.contrast is not None
    assert np.array_equal(scene.contrast, expected)


def test_a_contrast_of_another_size_is_refused(exported: Workshop, tmp_path: Path) -> None:
    workshop = copy_of(exported, tmp_path)
    recipe = workshop.bundle("tiny") / "recipe.toml"
    recipe.write_text(recipe.read_text() + '[figures]\ncontrast = "tiny-ae"\n')
    with pytest.raises(BundleError, match=r"tiny-ae.*latent dimensions"):
        load_scene(workshop.bundle("tiny"), data_dir=workshop.data_dir, models=workshop.models)
