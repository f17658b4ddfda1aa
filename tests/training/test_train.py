"""Runs: what they leave, and that one that was stopped goes on to the same numbers."""

import csv
import math
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT
from tests.training.conftest import Workshop, tiny_recipe, train_quietly
from training.recipe import Recipe, RecipeError
from training.train import COLUMNS, EpochLog, current_commit, load_checkpoint, run_folder

# A training that is killed as soon as it prints its second epoch: one checkpoint lies there, and two rows of the log.
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.training.conftest import source_of, train_quietly
from training.data import SOURCES
from training.recipe import load_recipe

class Fuse:
    def write(self, text):
        sys.__stdout__.write(text)
        if text.startswith("epoch 2"):
            sys.__stdout__.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    def flush(self):
        sys.__stdout__.flush()
    def isatty(self):
        return False

data_dir, recipe, runs = sys.argv[1:]
SOURCES["mnist"] = source_of(Path(data_dir, "mnist"))
sys.stdout = Fuse()
train_quietly(load_recipe(recipe), data_dir=Path(data_dir), runs=Path(runs))
"""


def read_log(folder: Path) -> list[dict[str, str]]:
    with (folder / "training.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_equal(a: Any, b: Any, place: str = "") -> None:
    """Equality of nested states, tensors bit for bit."""
    assert type(a) is type(b), place
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in a:
            assert_equal(a[key], b[key], f"{place}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), place
        for i, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_equal(left, right, f"{place}/{i}")
    else:
        assert a == b, place


def assert_same_end(recipe: Recipe, runs: Path, reference: Path) -> None:
    """Log, weights, averaged weights, optimizer and schedule are those of the run in `reference`."""
    logs = [(run_folder(folder, recipe) / "training.csv").read_bytes() for folder in (runs, reference)]
    assert logs[0] == logs[1]
    ours, theirs = load_checkpoint(recipe, runs), load_checkpoint(recipe, reference)
    for part in ("epoch", "global_step", "state_dict", "current_model_state", "optimizer_states", "lr_schedulers"):
        assert_equal(ours[part], theirs[part], part)


@pytest.mark.parametrize(("name", "epochs"), [("tiny", 3), ("tiny-2d", 2), ("tiny-ae", 1)])
def test_a_run_leaves_a_checkpoint_and_a_row_an_epoch(trained: Workshop, name: str, epochs: int) -> None:
    recipe = trained.recipes[name]
    folder = run_folder(trained.runs, recipe)
    assert folder == trained.runs / f"{name}-{recipe.version}"
    rows = read_log(folder)
    assert [row["epoch"] for row in rows] == [str(epoch + 1) for epoch in range(epochs)]
    assert list(rows[0]) == ["epoch", *COLUMNS]
    assert all(math.isfinite(float(row[column])) for row in rows for column in COLUMNS)
    assert load_checkpoint(recipe, trained.runs)["epoch"] + 1 == epochs
    assert sorted(path.name for path in folder.glob("*.ckpt")) == ["last.ckpt"]


@pytest.mark.parametrize("name", ["tiny", "tiny-2d"])
def test_the_loss_falls(trained: Workshop, name: str) -> None:
    rows = read_log(run_folder(trained.runs, trained.recipes[name]))
    for split in ("train", "test"):
        losses = [float(row[f"{split}/negative_elbo"]) for row in rows]
        assert losses[-1] < losses[0] - 10


def test_the_terms_add_up(trained: Workshop) -> None:
    for name, recipe in trained.recipes.items():
        for row in read_log(run_folder(trained.runs, recipe)):
            for split in ("train", "test"):
                terms = float(row[f"{split}/reconstruction"]) + float(row[f"{split}/kl"])
                assert float(row[f"{split}/negative_elbo"]) == pytest.approx(terms, abs=2e-3)
                assert (float(row[f"{split}/kl"]) == 0) == (name == "tiny-ae")


def test_a_checkpoint_carries_recipe_and_commit(trained: Workshop) -> None:
    recipe = trained.recipes["tiny"]
    checkpoint = load_checkpoint(recipe, trained.runs)
    assert Recipe.model_validate(checkpoint["recipe"]) == recipe
    assert checkpoint["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", checkpoint["commit"])


def test_the_commit_is_the_repositorys() -> None:
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    answer = subprocess.run(git, capture_output=True, text=True)
    commit = current_commit()
    if answer.returncode:
        assert commit is None
    else:
        assert commit is not None
        assert commit.removesuffix("-dirty") == answer.stdout.strip()


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert current_commit() is None


def test_averaged_weights_are_what_a_checkpoint_holds(trained: Workshop) -> None:
    checkpoint = load_checkpoint(trained.recipes["tiny"], trained.runs)
    averaged, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert averaged.keys() == current.keys()
    assert not any(torch.equal(averaged[name], current[name]) for name in averaged)
    assert "current_model_state" not in load_checkpoint(trained.recipes["tiny-2d"], trained.runs)


def test_the_same_recipe_trains_to_the_same_numbers(
    trained: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = trained.recipes["tiny"]
    folder = train_quietly(recipe, data_dir=trained.data_dir, runs=tmp_path)
    assert folder == run_folder(tmp_path, recipe)
    assert_same_end(recipe, tmp_path, trained.runs)
    # What is printed is what is logged.
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert lines == [[f"{key} {value}" for key, value in row.items()] for row in read_log(folder)]


def test_another_seed_trains_to_other_numbers(trained: Workshop, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "tiny", seed=8, training={"epochs": 1})
    folder = train_quietly(recipe, data_dir=trained.data_dir, runs=tmp_path)
    assert read_log(folder)[0] != read_log(run_folder(trained.runs, trained.recipes["tiny"]))[0]


def test_a_run_that_failed_goes_on_to_the_same_numbers(
    trained: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It fails at the end of its second epoch, before that is saved."""
    recipe = trained.recipes["tiny"]
    unpatched = EpochLog.on_train_epoch_end

    def fail(self: EpochLog, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            raise OSError("no space left on device")
        unpatched(self, trainer, pl_module)

    with monkeypatch.context() as patch:
        patch.setattr(EpochLog, "on_train_epoch_end", fail)
        with pytest.raises(OSError, match="no space left"):
            train_quietly(recipe, data_dir=trained.data_dir, runs=tmp_path)
    assert load_checkpoint(recipe, tmp_path)["epoch"] == 0
    capsys.readouterr()

    train_quietly(recipe, data_dir=trained.data_dir, runs=tmp_path)
    assert re.findall(r"^epoch (\d)", capsys.readouterr().out, re.MULTILINE) == ["2", "3"]
    assert_same_end(recipe, tmp_path, trained.runs)


def test_a_killed_process_goes_on_to_the_same_numbers(trained: Workshop, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "tiny")
    arguments = [str(trained.data_dir), str(tmp_path / "tiny.toml"), str(tmp_path)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert re.findall(r"^epoch (\d)", killed.stdout, re.MULTILINE) == ["1", "2"]
    assert load_checkpoint(recipe, tmp_path)["epoch"] == 0
    assert len(read_log(run_folder(tmp_path, recipe))) == 2

    train_quietly(recipe, data_dir=trained.data_dir, runs=tmp_path)
    assert_same_end(recipe, tmp_path, trained.runs)


def test_a_run_that_is_done_is_left_as_it_is(
    trained: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = trained.recipes["tiny"]
    shutil.copytree(trained.runs, tmp_path, dirs_exist_ok=True)
    train_quietly(recipe, data_dir=trained.data_dir, runs=tmp_path)
    assert "epoch " not in capsys.readouterr().out
    assert_same_end(recipe, tmp_path, trained.runs)


def test_fresh_starts_anew(trained: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = trained.recipes["tiny-ae"]
    shutil.copytree(trained.runs, tmp_path, dirs_exist_ok=True)
    train_quietly(recipe, data_dir=trained.data_dir, runs=tmp_path, fresh=True)
    assert "epoch 1 " in capsys.readouterr().out
    assert len(read_log(run_folder(tmp_path, recipe))) == 1


@pytest.mark.parametrize(
    "changes",
    [{"latent": 5}, {"seed": 8}, {"training": {"learning_rate": 2e-3}}, {"description": "Another."}],
    ids=str,
)
def test_another_recipes_checkpoint_is_refused(trained: Workshop, tmp_path: Path, changes: dict[str, Any]) -> None:
    other = tiny_recipe(tmp_path, "tiny", **changes)
    before = (run_folder(trained.runs, other) / "last.ckpt").read_bytes()
    with pytest.raises(RecipeError, match=r"tiny-1/last\.ckpt is of another recipe.*--fresh"):
        train_quietly(other, data_dir=trained.data_dir, runs=trained.runs)
    assert (run_folder(trained.runs, other) / "last.ckpt").read_bytes() == before


def test_another_recipes_checkpoint_is_replaced_by_a_fresh_run(trained: Workshop, tmp_path: Path) -> None:
    other = tiny_recipe(tmp_path, "tiny-ae", latent=3)
    runs = tmp_path / "runs"
    shutil.copytree(trained.runs, runs)
    train_quietly(other, data_dir=trained.data_dir, runs=runs, fresh=True)
    assert load_checkpoint(other, runs)["recipe"]["latent"] == 3


def test_versions_have_runs_of_their_own(trained: Workshop, tmp_path: Path) -> None:
    next_version = tiny_recipe(tmp_path, "tiny", version=2)
    with pytest.raises(RecipeError, match=r"tiny-2/last\.ckpt is absent"):
        load_checkpoint(next_version, trained.runs)
