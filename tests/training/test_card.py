"""The card says what the manifest says, to the digit, and shows the figures that are there."""

import re
from pathlib import Path

import pytest

from app.bundle import Manifest, read_manifest, write_manifest
from app.errors import BundleError
from tests.training.conftest import TINY, Workshop, copy_of
from training.__main__ import app
from training.card import captions, metric_rows, write_card


def card(workshop: Workshop, name: str) -> str:
    return (workshop.bundle(name) / "README.md").read_text()


def words(text: str) -> str:
    """The text without its line breaks, to look for sentences in."""
    return " ".join(text.split())


def table(text: str) -> dict[str, tuple[str, str]]:
    """Metric -> value and what it was measured on."""
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return {name: (value, on) for name, value, on in rows if name != "metric"}


@pytest.mark.parametrize("name", ["tiny", "tiny-2d"])
def test_the_metrics_are_the_manifests(finished: Workshop, name: str) -> None:
    metrics, rows = read_manifest(finished.bundle(name)).metrics, table(card(finished, name))
    assert {metric: value for metric, (value, _) in rows.items()} == {
        "NLL": f"{metrics['nll']:.2f} ± {metrics['nll_standard_error']:.2f}",
        "-ELBO": f"{metrics['negative_elbo']:.2f}",
        "Reconstruction": f"{metrics['reconstruction']:.2f}",
        "KL": f"{metrics['kl']:.2f}",
        "Active units": f"{metrics['active_units']} of {finished.recipes[name].latent}",
        "-ELBO, training split": f"{metrics['train_negative_elbo']:.2f}",
    }
    for metric, (_, on) in rows.items():
        assert on.startswith("dynamically binarized MNIST, "), "every number says what kind of pixels it was taken on"
        assert ("300 images" in on) == ("training" in metric)
    assert "k = 3" in rows["NLL"][1]


def test_an_autoencoders_metrics_are_no_likelihoods(finished: Workshop) -> None:
    metrics, rows = read_manifest(finished.bundle("tiny-ae")).metrics, table(card(finished, "tiny-ae"))
    assert {metric: value for metric, (value, _) in rows.items()} == {
        "Reconstruction": f"{metrics['reconstruction']:.2f}",
        "Reconstruction, training split": f"{metrics['train_reconstruction']:.2f}",
    }
    for _, on in rows.values():
        assert on.startswith("grey MNIST, ")
        assert "no likelihood" in on


@pytest.mark.parametrize(("name", "grey"), [("tiny-2d", True), ("tiny-ae", True), ("tiny", False)])
def test_training_on_grey_values_is_said_to_be_no_likelihood(finished: Workshop, name: str, grey: bool) -> None:
    text = words(card(finished, name))
    assert ("cross entropy with grey values" in text) is grey
    assert ("binarized digits, which the model was not trained on" in text) is (name == "tiny-2d")


def test_a_bundle_without_metrics_says_so(exported: Workshop) -> None:
    for name in TINY:
        assert "Not evaluated yet." in card(exported, name)
        assert table(card(exported, name)) == {}
        assert metric_rows({}, read_manifest(exported.bundle(name))) == []


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


def test_captions_name_the_plane_only_where_there_are_more_dimensions(finished: Workshop) -> None:
    for name, expected in (("tiny", True), ("tiny-2d", False), ("tiny-ae", False)):
        manifest = read_manifest(finished.bundle(name))
        assert ("highest KL" in captions(manifest)["posterior.png"]) is expected


def test_an_autoencoders_samples_are_not_called_prior_draws(finished: Workshop) -> None:
    assert "prior" not in captions(read_manifest(finished.bundle("tiny-ae")))["samples.png"]
    assert "prior" in captions(read_manifest(finished.bundle("tiny")))["samples.png"]


@pytest.mark.parametrize("name", TINY)
def test_the_training_is_told(finished: Workshop, name: str) -> None:
    text, manifest = words(card(finished, name)), read_manifest(finished.bundle(name))
    assert text.startswith(f"# {name}, version {manifest.version} {manifest.description}")
    assert f"seed {manifest.training.seed}" in text
    assert str(manifest.training.epochs) in text
    assert manifest.training.commit is None or f"`{manifest.training.commit}`" in text
    last = (finished.bundle(name) / "training.csv").read_text().splitlines()[-1].split(",")
    assert last[1] in text
    assert last[4] in text


def commands(text: str) -> list[list[str]]:
    return [line.split()[3:] for line in text.splitlines() if line.startswith("python -m training ")]


def test_its_commands_exist_and_name_the_bundle(finished: Workshop) -> None:
    known = {command.callback.__name__ for command in app.registered_commands}
    for name in TINY:
        bundle = f"models/{name}/{finished.recipes[name].version}"
        found = commands(card(finished, name))
        assert [command for command, _ in found] == ["train", "export", "evaluate", "figures"]
        assert {command for command, _ in found} <= known
        assert [target for _, target in found] == [f"{bundle}/recipe.toml"] * 2 + [bundle] * 2


def test_a_shipped_recipe_goes_by_its_name(finished: Workshop, tmp_path: Path) -> None:
    directory = copy_of(finished, tmp_path).bundle("tiny")
    manifest = read_manifest(directory)
    training = manifest.training.model_copy(update={"recipe": "training/recipes/tiny.toml"})
    write_manifest(directory, manifest.model_copy(update={"training": training}))
    write_card(directory)
    targets = [target for _, target in commands((directory / "README.md").read_text())]
    assert targets == ["tiny", "tiny", "models/tiny/1", "models/tiny/1"]


def test_the_licences_are_named(finished: Workshop) -> None:
    for name in TINY:
        text = words(card(finished, name))
        assert "CC BY-SA 3.0" in text
        assert "weights are under Apache-2.0" in text
        assert "LeCun" in text


def test_a_card_is_well_formed(finished: Workshop) -> None:
    for name in TINY:
        text = card(finished, name)
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert "\n\n\n" not in text
        assert "{" not in text
        assert "None" not in text
        assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1


def test_the_card_needs_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json"):
        write_card(tmp_path)


def test_the_card_needs_the_log(exported: Workshop, tmp_path: Path) -> None:
    directory = copy_of(exported, tmp_path).bundle("tiny-ae")
    (directory / "training.csv").unlink()
    with pytest.raises(BundleError, match=r"training\.csv"):
        write_card(directory)


def test_another_data_set_goes_by_its_own_name(finished: Workshop) -> None:
    manifest = read_manifest(finished.bundle("tiny"))
    training = manifest.training.model_copy(update={"dataset": "kanji"})
    other: Manifest = manifest.model_copy(update={"training": training})
    assert all("kanji" in on for _, _, on in metric_rows(manifest.metrics, other))
