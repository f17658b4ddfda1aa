"""The card shows the figures that are there, names the data's owners, and is whole Markdown."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.bundle.files import read_manifest
from app.errors import BundleError
from tests.training.conftest import TINY, Workshop, copy_of
from tests.training.linear import Linear
from training.card import captions, metric_rows, write_card
from training.data import emoji
from training.data.idx import SOURCES
from training.data.subjects import SUBJECTS, subject_of


def card(workshop: Workshop, name: str) -> str:
    return (workshop.bundle(name) / "README.md").read_text()


def words(text: str) -> str:
    """The text without its line breaks, to look for sentences in."""
    return " ".join(text.split())


def card_of(directory: Path, **training: Any) -> str:
    """The card of a bundle whose manifest says something else of the training."""
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["training"] |= training
    path.write_text(json.dumps(manifest))
    write_card(directory)
    return words((directory / "README.md").read_text())


def table(text: str) -> dict[str, tuple[str, str]]:
    """Metric -> value and what it was measured on."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return {name: (value, on) for name, value, on in rows if name != "metric"}


@pytest.mark.parametrize("name", TINY)
def test_the_metrics_are_the_manifests(finished: Workshop, name: str) -> None:
    manifest = read_manifest(finished.bundle(name))
    rows = metric_rows(manifest.metrics, manifest)
    assert table(card(finished, name)) == {metric: (value, on) for metric, value, on in rows}


def test_a_bundle_without_metrics_says_so(tmp_path: Path) -> None:
    text = card_of(Linear().write(tmp_path))
    assert "Not evaluated yet." in text
    assert table(text) == {}


@pytest.mark.parametrize("name", TINY)
def test_the_figures_that_are_there_are_shown(finished: Workshop, tmp_path: Path, name: str) -> None:
    directory = copy_of(finished, tmp_path).bundle(name)
    shown = re.findall(r"!\[.+?\]\((.+?)\)", (directory / "README.md").read_text())
    assert sorted(shown) == sorted(path.name for path in directory.glob("*.png"))
    assert len(shown) == len(set(shown))

    (directory / "samples.png").unlink()
    write_card(directory)
    assert "samples.png" not in (directory / "README.md").read_text()
    for path in directory.glob("*.png"):
        path.unlink()
    write_card(directory)
    assert "![" not in (directory / "README.md").read_text()
    assert "Figures" not in (directory / "README.md").read_text()


@pytest.mark.parametrize("name", TINY)
def test_every_figure_has_a_caption(finished: Workshop, name: str) -> None:
    text, manifest = card(finished, name), read_manifest(finished.bundle(name))
    for path in finished.bundle(name).glob("*.png"):
        assert f"({path.name})\n\n{captions(manifest)[path.name]}" in text


def test_captions_name_the_plane_only_where_there_are_more_dimensions(tmp_path: Path) -> None:
    for latent, expected in ((2, False), (4, True)):
        manifest = read_manifest(Linear(latent=latent).write(tmp_path / str(latent)))
        assert ("highest KL" in captions(manifest)["posterior.png"]) is expected
    manifest = read_manifest(Linear(stochastic=False).write(tmp_path / "plain"))
    assert "highest variance" in captions(manifest)["posterior.png"]


def test_an_autoencoders_samples_are_not_called_prior_draws(tmp_path: Path) -> None:
    for stochastic in (True, False):
        manifest = read_manifest(Linear(stochastic=stochastic).write(tmp_path / str(stochastic)))
        assert ("prior" in captions(manifest)["samples.png"]) is stochastic
        assert ("posterior" in captions(manifest)["aggregate.png"]) is stochastic


def test_only_a_labelled_aggregate_is_picked_from_by_label(tmp_path: Path) -> None:
    for labels in ((0, 1), None):
        manifest = read_manifest(Linear(labels=labels).write(tmp_path / str(labels)))
        assert ("`label=`" in captions(manifest)["aggregate.png"]) is (labels is not None)


def test_every_downloaded_data_set_is_known() -> None:
    assert SUBJECTS.keys() == {*SOURCES, "emoji", "faces"}
    assert len(SUBJECTS["emoji"].classes) == len(emoji.CATEGORIES)
    assert {len(subject.classes) for key, subject in SUBJECTS.items() if key in SOURCES} <= {0, 10}


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (
            "mnist",
            ["Not for reading digits", "handwritten digits", "smoother than the digits", "LeCun", "CC BY-SA 3.0"],
        ),
        ("fashion-mnist", ["Not for sorting clothes", "articles of clothing", "Xiao", "Zalando", "MIT"]),
        ("kmnist", ["Not for reading manuscripts", "kuzushiji", "ROIS-DS", "10.20676/00000341", "CC BY-SA 4.0"]),
        ("faces/aligned.npz", ["like those of `faces/aligned.npz`", "of the data set `faces/aligned.npz` is its"]),
    ],
)
def test_use_and_licences_are_those_of_the_data_set(tmp_path: Path, dataset: str, expected: list[str]) -> None:
    text = card_of(Linear().write(tmp_path), dataset=dataset)
    for phrase in (*expected, "8 x 8 colour pictures", "weights are under Apache-2.0"):
        assert phrase in text
    others = {subject.misuse for key, subject in SUBJECTS.items() if key != dataset}
    assert not any(misuse in text for misuse in others)


def test_a_data_set_of_ones_own_goes_by_its_own_name() -> None:
    assert [subject_of(key).title for key in ("odd.npz", "faces/aligned", "mnist")] == ["odd", "aligned", "MNIST"]


def test_one_dimension_is_one(tmp_path: Path) -> None:
    assert "a Gaussian posterior in 1 dimension, " in card_of(Linear(latent=1).write(tmp_path))


def test_a_card_is_well_formed(finished: Workshop) -> None:
    for name in TINY:
        text = card(finished, name)
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert "\n\n\n" not in text
        assert "{" not in text
        assert "None" not in text
        assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("missing", ["manifest.json", "training.csv", "recipe.toml"])
def test_the_card_needs_manifest_log_and_recipe(tmp_path: Path, missing: str) -> None:
    directory = Linear().write(tmp_path)
    (directory / missing).unlink()
    with pytest.raises(BundleError, match=missing):
        write_card(directory)
