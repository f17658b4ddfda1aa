"""Every kind of bundle gets the figures that it should, small ones, and keeps no others."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.bundle.files import read_manifest
from app.errors import BundleError
from tests.training.conftest import TINY, Workshop, copy_of
from tests.training.linear import Linear
from training.card import captions
from training.errors import DataError
from training.figures import figures

COMMON = {"reconstructions.png", "samples.png", "interpolation.png", "training.png", "aggregate.png"}
VARIATIONAL = COMMON | {"active_units.png", "rate_distortion.png"}
TRAINED = {
    "tiny-ae": COMMON | {"posterior.png"},
    "tiny-2d": VARIATIONAL | {"posterior.png", "encoding.png", "manifold.png", "contrast.png"},
    "tiny": VARIATIONAL | {"posterior.png", "encoding.png", "traversals.png"},
}
CONTRAST = '[figures]\ncontrast = "odd"\n'
LINEAR = {
    "color": (Linear(), TRAINED["tiny"]),
    "one dimension": (Linear(latent=1, recipe=CONTRAST), VARIATIONAL | {"traversals.png"}),
    "no labels": (Linear(latent=2, labels=None, recipe=CONTRAST), TRAINED["tiny-2d"] - {"contrast.png"}),
    "many labels": (Linear(latent=2, labels=tuple(range(5, 30)), recipe=CONTRAST), TRAINED["tiny-2d"]),
    "thirteen labels": (Linear(latent=60, channels=1, labels=tuple(range(13))), TRAINED["tiny"]),
    "no mixture": (Linear(mixture=False, likelihood="discretized_logistic"), TRAINED["tiny"] - {"aggregate.png"}),
    "validation": (Linear(watched="validation", extra_columns=("negative_iwae",)), TRAINED["tiny"]),
    "autoencoder": (Linear(latent=1, labels=None, stochastic=False), COMMON),
    "large images": (Linear(size=128, labels=(3, 4)), TRAINED["tiny"]),
}


def draw(folder: Path, linear: Linear) -> list[Path]:
    return figures(linear.write(folder), data_dir=folder, models=folder / "models")


@pytest.mark.parametrize("name", TINY)
def test_a_bundle_gets_the_figures_of_its_kind(finished: Workshop, name: str) -> None:
    drawn = {path.name for path in finished.bundle(name).glob("*.png")}
    assert drawn == TRAINED[name]
    assert drawn <= set(captions(read_manifest(finished.bundle(name))))


@pytest.mark.slow(reason="trains two more models")
@pytest.mark.parametrize("name", LINEAR)
def test_so_does_one_of_other_images_labels_and_sizes(tmp_path: Path, name: str) -> None:
    linear, expected = LINEAR[name]
    paths = draw(tmp_path, linear)
    assert {path.name for path in paths} == expected
    assert set(paths) == set(paths[0].parent.glob("*.png"))
    assert all(path.stat().st_size < 500_000 for path in paths)
    card = (paths[0].parent / "README.md").read_text()
    assert all(f"]({path.name})" in card for path in paths)


@pytest.mark.parametrize("name", TINY)
def test_figures_are_small_pictures_of_something(finished: Workshop, name: str) -> None:
    paths = list(finished.bundle(name).glob("*.png"))
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert 1000 < len(content) < 400_000, path
        image = Image.open(io.BytesIO(content))
        image.load()
        assert min(image.size) > 200, path
        assert np.asarray(image.convert("L")).std() > 5, path
    assert sum(path.stat().st_size for path in paths) < 2_000_000


def test_figures_tell_nothing_of_the_software_that_drew_them(finished: Workshop) -> None:
    for path in finished.models.rglob("*.png"):
        assert "Software" not in Image.open(io.BytesIO(path.read_bytes())).info


def test_figures_are_reproducible_and_need_no_metrics(finished: Workshop, exported: Workshop, tmp_path: Path) -> None:
    workshop = copy_of(exported, tmp_path)
    directory = workshop.bundle("tiny-ae")
    paths = figures(directory, data_dir=workshop.data_dir, models=workshop.models)
    assert {path.name for path in paths} == TRAINED["tiny-ae"]
    assert {path.parent for path in paths} == {directory}
    card = (directory / "README.md").read_text()
    for path in paths:
        assert f"]({path.name})" in card
        assert (
            path.name == "posterior.png" or path.read_bytes() == (finished.bundle("tiny-ae") / path.name).read_bytes()
        )


def test_figures_that_such_a_bundle_no_longer_has_are_removed(tmp_path: Path) -> None:
    directory = Linear().write(tmp_path)
    for name in ("manifold.png", "contrast.png", "own.png", "kl.svg"):
        (directory / name).write_bytes(b"old")
    drawn = {path.name for path in figures(directory, data_dir=tmp_path, models=tmp_path / "models")}
    assert {path.name for path in directory.glob("*.png")} == drawn | {"own.png"}
    assert (directory / "kl.svg").exists(), "nobody drew that here"


@pytest.mark.parametrize("missing", ["training.csv", "recipe.toml"])
def test_a_bundle_that_lacks_a_file_is_refused_by_its_name(tmp_path: Path, missing: str) -> None:
    directory = Linear().write(tmp_path)
    (directory / missing).unlink()
    with pytest.raises(BundleError, match=missing):
        figures(directory, data_dir=tmp_path, models=tmp_path / "models")


def test_without_data_nothing_is_drawn_and_nothing_removed(tmp_path: Path) -> None:
    directory = Linear().write(tmp_path)
    (directory / "kl.png").write_bytes(b"old")
    (tmp_path / "odd.npz").unlink()
    with pytest.raises(DataError, match=r"odd\.npz"):
        figures(directory, data_dir=tmp_path, models=tmp_path / "models")
    assert [path.name for path in directory.glob("*.png")] == ["kl.png"]
