"""The card tells how the model was trained, what that makes of its numbers, and commands that do it again."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.bundle.files import read_manifest, write_manifest
from tests.conftest import ROOT
from tests.training.conftest import TINY, Workshop
from tests.training.linear import EPOCHS, Linear
from training.__main__ import app
from training.card import write_card
from training.card.training import duration, objective_in_words

REPORT = {
    "epochs": EPOCHS,
    "epochs_now": EPOCHS,
    "seconds": 4321.5,
    "images_per_second": 1234.5,
    "processes": 1,
    "device": "CPU, 2 threads",
    "precision": "32-true",
    "parameters": 683_401,
    "skipped_steps": 0,
    "terms": {},
    "torch": "2.11.0",
}


def words(directory: Path) -> str:
    """The card anew, without its line breaks."""
    write_card(directory)
    return " ".join((directory / "README.md").read_text().split())


def commands(text: str) -> list[list[str]]:
    return [line.split()[3:] for line in text.splitlines() if line.startswith("python -m training ")]


@pytest.mark.parametrize("name", TINY)
def test_the_training_is_told(finished: Workshop, name: str) -> None:
    directory = finished.bundle(name)
    text, manifest = " ".join((directory / "README.md").read_text().split()), read_manifest(directory)
    assert text.startswith(f"# {name}, version {manifest.version} {manifest.description}")
    assert f"Epochs of MNIST: {manifest.training.epochs}, with seed {manifest.training.seed}" in text
    assert manifest.training.commit is None or f"`{manifest.training.commit}`" in text
    header, *_, last = (directory / "training.csv").read_text().splitlines()
    row = dict(zip(header.split(","), last.split(","), strict=True))
    assert f"(epoch {row['epoch']}: {row['train/negative_elbo']} nats in training, " in text
    assert f"{row['test/negative_elbo']} on the test split)" in text


@pytest.mark.parametrize(("name", "grey"), [("tiny-2d", True), ("tiny-ae", True), ("tiny", False)])
def test_training_on_grey_values_is_said_to_be_no_likelihood(finished: Workshop, name: str, grey: bool) -> None:
    text = " ".join((finished.bundle(name) / "README.md").read_text().split())
    assert ("cross entropy with grey values, as many" in text) is grey
    assert ("binarized digits, which the model was not trained on" in text) is (name == "tiny-2d")


def test_the_epoch_of_the_weights_is_told_and_the_split_that_was_watched(tmp_path: Path) -> None:
    directory = Linear(watched="validation").write(tmp_path)
    manifest = read_manifest(directory)
    training = manifest.training.model_copy(update={"epochs": 4})  # stopped early: the best of the 12 is exported
    write_manifest(directory, manifest.model_copy(update={"training": training}))
    assert "(epoch 4: 27.000 nats in training, 30.000 on the validation split)" in words(directory)


@pytest.mark.parametrize(
    ("recipe", "expected", "unexpected"),
    [
        ({}, "the negative ELBO, an upper bound on -log p(x).", "beta"),
        ({"objective": {"name": "elbo", "beta": 1.0, "free_bits": 0.0}}, "an upper bound on -log p(x).", "free"),
        ({"objective": {"beta": 4.0}}, "plus 4 times the KL (a beta-VAE), which is no bound", "upper bound"),
        ({"objective": {"free_bits": 0.25}}, "0.25 nats of KL a dimension cost nothing", "times"),
        ({"objective": {"name": "iwae", "k": 5}}, "the IWAE bound with 5 draws an image", "upper bound"),
        ({"objective": {"name": "iwae", "k": 5}}, "its ELBO is loose by design", "upper bound"),
        ({"objective": {"name": "autoencoder"}}, "the reconstruction alone", "upper bound"),
        ({"likelihood": {"name": "grey_cross_entropy"}}, "the reconstruction plus the KL.", "bound"),
    ],
    ids=str,
)
def test_the_objective_is_put_in_words(recipe: dict[str, Any], expected: str, unexpected: str) -> None:
    text = objective_in_words(recipe)
    assert expected in text
    assert unexpected not in text


def test_the_start_is_named(tmp_path: Path) -> None:
    started = Linear(recipe='[training]\nstart = "mnist/1"\n').write(tmp_path / "a")
    assert "The training starts from the weights of `mnist/1`." in words(started)
    assert "starts from" not in words(Linear().write(tmp_path / "b"))


def test_time_and_device_are_told_where_there_is_a_report(tmp_path: Path) -> None:
    directory = Linear().write(tmp_path)
    assert "took" not in words(directory)
    (directory / "report.json").write_text(json.dumps(REPORT))
    expected = "The training took 1 h 12 min on CPU, 2 threads, at 1,234 images a second; 683,401 parameters."
    assert expected in words(directory)
    (directory / "report.json").write_text(json.dumps(REPORT | {"epochs_now": 3}))
    assert "Its last 3 epochs took 1 h 12 min" in words(directory)


def test_skipped_steps_are_told_where_there_were_any(tmp_path: Path) -> None:
    assert "skipped" not in words(Linear().write(tmp_path / "a"))
    directory = Linear().write(tmp_path / "b")
    header, *rows = (directory / "training.csv").read_text().splitlines()
    with_steps = [f"{header},train/skipped_steps", *(f"{row},{i % 2}" for i, row in enumerate(rows))]
    (directory / "training.csv").write_text("\n".join(with_steps) + "\n")
    assert "Steps skipped for the size of their gradient: 6." in words(directory)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(44.6, "45 s"), (61, "1 min"), (3599, "1 h 0 min"), (9000, "2 h 30 min")]
)
def test_a_duration_is_rounded(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_its_commands_exist_and_name_the_bundle(finished: Workshop) -> None:
    known = {command.callback.__name__ for command in app.registered_commands if command.callback}
    for name in TINY:
        bundle = f"models/{name}/{finished.recipes[name].version}"
        found = commands((finished.bundle(name) / "README.md").read_text())
        assert [command for command, _ in found] == ["train", "export", "evaluate", "figures"]
        assert {command for command, _ in found} <= known
        assert [target for _, target in found] == [f"{bundle}/recipe.toml"] * 2 + [bundle] * 2


@pytest.mark.parametrize("shipped", [True, False], ids=["shipped", "of an older version"])
def test_a_recipe_goes_by_its_name_as_long_as_it_is_the_shipped_one(tmp_path: Path, shipped: bool) -> None:
    directory = Linear().write(tmp_path)
    manifest = read_manifest(directory)
    write_manifest(directory, manifest.model_copy(update={"name": "mnist-2d"}))
    shutil.copy(ROOT / "training" / "recipes" / "mnist-2d.toml", directory / "recipe.toml")
    if not shipped:
        recipe = (directory / "recipe.toml").read_text()
        (directory / "recipe.toml").write_text(recipe.replace("\nversion = ", "\nversion = 9"))
    write_card(directory)
    targets = [target for _, target in commands((directory / "README.md").read_text())]
    recipe = "mnist-2d" if shipped else "models/mnist-2d/1/recipe.toml"
    assert targets == [recipe, recipe, "models/mnist-2d/1", "models/mnist-2d/1"]


def test_a_shipped_recipe_whose_defaults_are_spelled_out_is_still_the_shipped_one(tmp_path: Path) -> None:
    directory = Linear().write(tmp_path)
    write_manifest(directory, read_manifest(directory).model_copy(update={"name": "mnist-2d"}))
    recipe = (ROOT / "training" / "recipes" / "mnist-2d.toml").read_text()
    (directory / "recipe.toml").write_text(recipe.replace("[objective]", '[objective]\nfurther = "default"'))
    assert "python -m training train mnist-2d " in words(directory)


def test_the_card_imports_no_torch() -> None:
    program = "import sys; import training.card; print({'torch', 'lightning', 'matplotlib'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert answer.stdout.strip() == "set()", answer.stderr
