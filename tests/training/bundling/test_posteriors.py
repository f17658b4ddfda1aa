"""What a bundle keeps of held-out posteriors: means as `/encode` gives them, their classes, their principal axes."""

from pathlib import Path

import numpy as np
import pytest

from app.bundle.files import read_bundle
from tests.conftest import MODELS, Pixels
from tests.training.conftest import TRAIN_IMAGES, Workshop, copy_of
from training.bundling.posteriors import directions, posteriors
from training.offline import OfflineGraphs

DIRECTORIES = sorted(path.parent for path in MODELS.glob("*/*/manifest.json") if path.parts[-3] != "emoji")


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_shipped_ones_are_of_every_second_test_digit(directory: Path, digits: Pixels, labels: Pixels) -> None:
    bundle = read_bundle(directory)
    means = OfflineGraphs(bundle).encode(digits[::2, None]).mean
    assert bundle.arrays["held_out_means"].shape[0] == 5000
    assert np.abs(bundle.arrays["held_out_means"][: len(means)] - means).max() < 1e-4
    assert (bundle.arrays["held_out_labels"][: len(means)] == labels[::2]).all()
    squares = np.square(bundle.arrays["held_out_means"]).sum(axis=1)
    assert np.median(squares) == pytest.approx(bundle.arrays["mean_norm_quantiles"][500], rel=0.05)
    lengths = np.linalg.norm(bundle.arrays["directions"], axis=1)
    assert (np.diff(lengths) <= 0).all()
    assert lengths[0] == pytest.approx(np.linalg.norm(directions(bundle.arrays["held_out_means"])[0]), rel=0.05)


def test_directions_are_axes_as_long_as_the_means_spread() -> None:
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    means = np.random.default_rng(1).normal(size=(20_000, 3)) * [3, 1, 0.2] @ turn + 5
    found = directions(means.astype(np.float32))
    lengths = np.linalg.norm(found, axis=1)
    assert lengths == pytest.approx([3, 1, 0.2], rel=0.02)
    assert np.abs(found / lengths[:, None] @ turn.T) == pytest.approx(np.eye(3), abs=0.02)


def test_an_exported_bundle_has_them(exported: Workshop, digits: Pixels, labels: Pixels) -> None:
    bundle = read_bundle(exported.bundle("tiny"))
    assert (bundle.arrays["held_out_means"] == OfflineGraphs(bundle).encode(digits[TRAIN_IMAGES:, None]).mean).all()
    assert (bundle.arrays["held_out_labels"] == labels[TRAIN_IMAGES:]).all()


def test_one_that_lacks_them_gets_them_and_stays_what_it_was(exported: Workshop, tmp_path: Path) -> None:
    workshop = copy_of(exported, tmp_path)
    directory = workshop.bundle("tiny")
    before = read_bundle(directory)
    written = posteriors(directory, data_dir=workshop.data_dir)
    after = read_bundle(directory)
    assert set(written) >= {"held_out_means", "held_out_labels", "directions", "mean_norm_quantiles"}
    assert after.manifest == before.manifest
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]
