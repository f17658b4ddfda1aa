"""The pictures show what the graphs decode, to the pixel, each where it belongs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.bundle.files import read_bundle
from app.maths import gaussian
from tests.training.conftest import Workshop
from tests.training.linear import Linear
from training.figures import figures
from training.figures.images import TEMPERATURES, draw_traversals
from training.figures.scene import Scene, load_scene
from training.offline import OfflineGraphs

TILE, STEP = 56, 60


def shown(directory: Path, name: str) -> np.ndarray:
    """RGB `[H, W, 3]`."""
    return np.asarray(Image.open(directory / name).convert("RGB"))


def assert_shows(picture: np.ndarray, top: int, left: int, image: np.ndarray) -> None:
    """The image `[C, H, W]` lies there, enlarged to a tile."""
    factor = TILE // image.shape[1]
    expected = np.broadcast_to(np.moveaxis(image, 0, 2), (*image.shape[1:], 3)).repeat(factor, 0).repeat(factor, 1)
    assert np.array_equal(picture[top : top + TILE, left : left + TILE], expected)


@pytest.fixture(scope="module")
def color(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Of 8 x 8 color images with the labels 0, 1 and 2, drawn."""
    folder = tmp_path_factory.mktemp("color")
    directory = Linear().write(folder)
    figures(directory, data_dir=folder, models=folder / "models")
    return load_scene(directory, data_dir=folder, models=folder / "models")


@pytest.fixture(scope="module")
def directory(color: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next(tmp_path_factory.getbasetemp().glob("color*/models/odd/1"))


def test_the_samples_are_the_same_draws_at_three_temperatures(color: Scene, directory: Path) -> None:
    picture = shown(directory, "samples.png")
    assert picture.shape == (6 * STEP - 4 + 40, 3 * (6 * STEP - 4) + 2 * 24, 3)
    eps = gaussian.standard_normal(0, 36, (3,))
    for panel, temperature in enumerate(TEMPERATURES):
        images = color.graphs.decode(np.float32(temperature) * eps)
        for index, image in enumerate(images):
            row, column = divmod(index, 6)
            assert_shows(picture, 40 + STEP * row, panel * (6 * STEP - 4 + 24) + STEP * column, image)


def test_grey_samples_are_shown_in_grey(finished: Workshop) -> None:
    directory = finished.bundle("tiny")
    with Image.open(directory / "samples.png") as image:
        assert image.mode == "L"
    images = OfflineGraphs(read_bundle(directory)).decode(gaussian.sample_prior(0, 36, (4,)))
    assert np.ptp(images, axis=0).max() > 20, "or one would pass for another"
    picture = shown(directory, "samples.png")
    for index, image in enumerate(images):
        row, column = divmod(index, 6)
        assert_shows(picture, 40 + STEP * row, 6 * STEP - 4 + 24 + STEP * column, image)


def test_the_aggregates_rows_are_its_labels(color: Scene, directory: Path) -> None:
    assert color.mixture is not None
    picture = shown(directory, "aggregate.png")
    picture = picture[:, -(10 * STEP - 4) :]
    for label in range(3):
        images = color.graphs.decode(color.mixture.sample(0, 10, label=label))
        for column, image in enumerate(images):
            assert_shows(picture, STEP * label, STEP * column, image)


def test_an_aggregate_without_labels_fills_ten_rows(tmp_path: Path) -> None:
    directory = Linear(labels=None).write(tmp_path)
    figures(directory, data_dir=tmp_path, models=tmp_path / "models")
    assert shown(directory, "aggregate.png").shape == (10 * STEP - 4, 10 * STEP - 4, 3)


def test_the_reconstructions_are_below_their_images(color: Scene, directory: Path) -> None:
    rows = color.examples(20)
    decoded = color.graphs.decode(color.posterior.mean[rows])
    picture = shown(directory, "reconstructions.png")
    assert picture.shape[0] == 4 * STEP - 4
    picture = picture[:, -(10 * STEP - 4) :]
    for index, row in enumerate(rows):
        block, column = divmod(index, 10)
        assert_shows(picture, 2 * block * STEP, column * STEP, color.test.images[row])
        assert_shows(picture, (2 * block + 1) * STEP, column * STEP, decoded[index])


def test_the_interpolation_goes_from_image_to_image(finished: Workshop) -> None:
    directory = finished.bundle("tiny")
    scene = load_scene(directory, data_dir=finished.data_dir, models=finished.models)
    picture = shown(directory, "interpolation.png")
    assert picture.shape == (5 * STEP - 4, 12 * STEP - 4, 3)
    ends = [int(np.flatnonzero(scene.test.labels == label)[0]) for label in (0, 6)]
    mean = scene.posterior.mean[ends]
    first, middle, last = scene.graphs.decode(np.stack([mean[0], mean[0] + 5 / 11 * (mean[1] - mean[0]), mean[1]]))
    for column, image in ((0, first), (5, middle), (11, last)):
        assert_shows(picture, 0, STEP * column, image)


def test_the_manifold_is_the_grid_of_the_plane(finished: Workshop) -> None:
    directory = finished.bundle("tiny-2d")
    images = OfflineGraphs(read_bundle(directory)).decode(gaussian.manifold_grid(20))
    picture = shown(directory, "manifold.png")
    picture = picture[: 20 * TILE, -20 * TILE :]
    for index, image in enumerate(images):
        assert_shows(picture, *(TILE * place for place in divmod(index, 20)), image)


def test_a_traversal_moves_one_dimension_of_one_image(color: Scene, directory: Path) -> None:
    figure = draw_traversals(color)
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"$z_{{{dim}}}$, {color.kl[dim]:.2f} nats" for dim in color.order]
    assert [label.get_text() for label in axes.get_xticklabels()][::6] == ["\N{MINUS SIGN}3.0", "0.0", "3.0"]

    pixels = axes.get_images()[0].get_array()
    assert pixels is not None
    mean = color.posterior.mean[color.specimen]
    for row, dim in enumerate(color.order):
        for column, value in ((0, -3), (6, 0), (12, 3)):
            latent = mean.copy()
            latent[dim] = value
            assert_shows(np.asarray(pixels), STEP * row, STEP * column, color.graphs.decode(latent[None])[0])
        frame = axes.patches[row]
        assert frame.get_x() // STEP + 1 == np.abs(np.linspace(-3, 3, 13) - mean[dim]).argmin()


def test_sixteen_dimensions_are_traversed_at_most(tmp_path: Path) -> None:
    scene = load_scene(Linear(latent=20).write(tmp_path), data_dir=tmp_path, models=tmp_path / "models")
    assert len(draw_traversals(scene).axes[0].get_yticklabels()) == 16
