"""Runs: what they leave, that one which was stopped goes on to the same numbers, and that two processes are as one."""

import csv
import math
import os
import re
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from app.maths.likelihood import binarize
from tests.conftest import ROOT, free_port
from tests.processes import PATIENCE
from tests.training.conftest import MORE, TINY, Workshop, tiny_recipe
from training.bundling.export import to_toml
from training.data import load_dataset
from training.errors import RecipeError
from training.fit import train as training_train
from training.fit.batches import ImageBatches
from training.fit.module import VaeModule
from training.fit.train import Hardware, load_checkpoint, run_folder, train
from training.recipe import Recipe, load_recipe

MLP = {"name": "mlp", "width": 16, "depth": 1}
NPZ = {"dataset": "npz", "path": "tiny.npz"}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

# Trains recipes, each in a process that is killed as soon as it prints an epoch: its checkpoint is the one before.
KILLED = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from training.recipe import load_recipe
from training.fit.train import train

class Fuse:
    def __init__(self, epoch):
        self.epoch = epoch
    def write(self, text):
        if text.startswith(f"epoch {self.epoch} "):
            os.kill(os.getpid(), signal.SIGKILL)
    def flush(self):
        pass
    def isatty(self):
        return False

data_dir, runs, *arguments = sys.argv[1:]
for path, epoch in zip(arguments[::2], arguments[1::2], strict=True):
    child = os.fork()  # and not a process each: to import takes longer than to train
    if not child:
        sys.stdout = Fuse(epoch)
        train(load_recipe(path), data_dir=Path(data_dir), runs=Path(runs))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

# Trains recipes one after the other by the command line, in as many processes as torchrun starts.
SHARED = """
import sys
from training.__main__ import app

data_dir, runs, *recipes = sys.argv[1:]
for recipe in recipes:
    app(["train", recipe, "--data-dir", data_dir, "--runs", runs, "--accelerator", "cpu"], standalone_mode=False)
"""


def read_log(folder: Path) -> list[dict[str, str]]:
    with (folder / "training.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def columns(recipe: Recipe) -> list[str]:
    names = ["reconstruction", "kl", "negative_elbo", *(["negative_iwae"] if recipe.objective.name == "iwae" else [])]
    return [f"{split}/{name}" for split in ("train", recipe.watched) for name in names]


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


PARTS = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers")


def assert_same_end(recipe: Recipe, runs: Path, reference: Path) -> None:
    """Log, weights, averaged weights, optimizer and schedule are those of the run in `reference`."""
    logs = [(run_folder(folder, recipe) / "training.csv").read_bytes() for folder in (runs, reference)]
    assert logs[0] == logs[1]
    averaged = ("current_model_state", "averaging_state") if recipe.training.ema_decay else ()
    for name in ("last", "best") if recipe.training.early_stopping_epochs else ("last",):
        ours, theirs = load_checkpoint(recipe, runs, name), load_checkpoint(recipe, reference, name)
        for part in (*PARTS, *averaged):
            assert_equal(ours[part], theirs[part], part)


@pytest.fixture
def workshop(request: pytest.FixtureRequest, trained: Workshop, trained_more: Workshop) -> Workshop:
    return trained if request.param in TINY else trained_more


# What a run leaves.

EPOCHS = {"tiny": 3, "tiny-2d": 2, "tiny-ae": 1, "tiny-iwae": 3}


@pytest.mark.parametrize(("workshop", "name"), [(name, name) for name in EPOCHS], indirect=["workshop"])
def test_a_run_leaves_a_checkpoint_and_a_row_an_epoch(workshop: Workshop, name: str) -> None:
    recipe = workshop.recipes[name]
    folder = run_folder(workshop.runs, recipe)
    assert folder == workshop.runs / f"{name}-{recipe.version}"
    rows = read_log(folder)
    assert [row["epoch"] for row in rows] == [str(epoch + 1) for epoch in range(EPOCHS[name])]
    assert list(rows[0]) == ["epoch", *columns(recipe), "train/skipped_steps"]
    assert all(math.isfinite(float(row[column])) for row in rows for column in columns(recipe))
    assert all(row["train/skipped_steps"] == "0" for row in rows)
    assert load_checkpoint(recipe, workshop.runs)["epoch"] + 1 == EPOCHS[name]
    assert sorted(path.name for path in folder.iterdir()) == ["last.ckpt", "report.json", "tensorboard", "training.csv"]


@pytest.mark.parametrize(
    ("workshop", "name"), [(name, name) for name in ("tiny", "tiny-2d", "tiny-iwae")], indirect=["workshop"]
)
def test_the_loss_falls(workshop: Workshop, name: str) -> None:
    rows = read_log(run_folder(workshop.runs, workshop.recipes[name]))
    for split in ("train", "test"):
        losses = [float(row[f"{split}/negative_elbo"]) for row in rows]
        assert losses[-1] < losses[0] - 10


@pytest.mark.parametrize(("workshop", "name"), [(name, name) for name in (*TINY, *MORE)], indirect=["workshop"])
def test_the_terms_add_up(workshop: Workshop, name: str) -> None:
    recipe = workshop.recipes[name]
    for row in read_log(run_folder(workshop.runs, recipe)):
        for split in ("train", recipe.watched):
            terms = {term.split("/")[1]: float(value) for term, value in row.items() if term.startswith(split)}
            assert terms["reconstruction"] + terms["kl"] == pytest.approx(terms["negative_elbo"], abs=0.002, rel=1e-6)
            assert (terms["kl"] > 0) == recipe.stochastic
            assert terms.get("negative_iwae", -math.inf) < terms["negative_elbo"], "the bound is tighter"


@pytest.mark.parametrize(("workshop", "name"), [(name, name) for name in ("tiny", "tiny-early")], indirect=["workshop"])
def test_tensorboard_shows_what_the_log_has(workshop: Workshop, name: str) -> None:
    recipe = workshop.recipes[name]
    folder = run_folder(workshop.runs, recipe)
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    rows = read_log(folder)
    for column in (*columns(recipe), "train/skipped_steps"):
        values = [event.value for event in events.Scalars(column)]
        assert values == pytest.approx([float(row[column]) for row in rows], rel=1e-5, abs=1e-3)


@pytest.mark.parametrize(("workshop", "name"), [(name, name) for name in (*TINY, *MORE)], indirect=["workshop"])
def test_a_checkpoint_holds_its_recipe_and_its_commit(workshop: Workshop, name: str) -> None:
    recipe = workshop.recipes[name]
    checkpoint = load_checkpoint(recipe, workshop.runs)
    assert Recipe.model_validate(checkpoint["recipe"]) == recipe
    assert checkpoint["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", checkpoint["commit"])


def test_averaged_weights_are_what_a_checkpoint_holds(trained: Workshop) -> None:
    checkpoint = load_checkpoint(trained.recipes["tiny"], trained.runs)
    averaged, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert averaged.keys() == current.keys()
    assert not any(torch.equal(averaged[name], current[name]) for name in averaged)
    assert "current_model_state" not in load_checkpoint(trained.recipes["tiny-2d"], trained.runs)


def test_static_pixels_are_drawn_once_by_the_recipes_seed(trained: Workshop, tmp_path: Path) -> None:
    likelihood = {"name": "bernoulli", "binarization": "static"}
    objective, training = {"name": "elbo"}, {"epochs": 1, "ema_decay": None}
    recipe = tiny_recipe(
        tmp_path, "tiny", architecture=MLP, likelihood=likelihood, objective=objective, training=training
    )
    (row,) = read_log(train(recipe, data_dir=trained.data_dir, runs=tmp_path))
    module = VaeModule(recipe, channels=1, size=28)
    module.load_state_dict(load_checkpoint(recipe, tmp_path)["state_dict"])

    def measured(seed: int) -> float:
        images = binarize(load_dataset(recipe.data, trained.data_dir).test.images, seed)
        module.on_validation_epoch_start()
        with torch.no_grad():
            parts = [
                module.terms(batch) for batch in ImageBatches(torch.from_numpy(images), recipe.training.batch_size)
            ]
        return sum((part.reconstruction.sum() + part.kl.sum()).item() for part in parts) / len(images)

    logged = float(row["test/negative_elbo"])
    assert measured(recipe.seed) == pytest.approx(logged, abs=0.002)
    assert max(abs(measured(seed) - logged) for seed in range(5)) > 0.1


@pytest.mark.parametrize("objective", [{"name": "elbo"}, {"name": "iwae", "k": 2}], ids=str)
def test_bfloat16_trains_on_a_cpu(trained: Workshop, tmp_path: Path, objective: dict[str, Any]) -> None:
    training = {"epochs": 1, "precision": "bf16-mixed"}
    recipe = tiny_recipe(tmp_path, "tiny", architecture=MLP, objective=objective, training=training)
    (row,) = read_log(train(recipe, data_dir=trained.data_dir, runs=tmp_path / "half"))
    (full,) = read_log(
        train(
            recipe.model_copy(update={"training": recipe.training.model_copy(update={"precision": "32-true"})}),
            data_dir=trained.data_dir,
            runs=tmp_path / "full",
        )
    )
    for column in columns(recipe):
        assert float(row[column]) == pytest.approx(float(full[column]), rel=0.05, abs=0.5)
    assert row != full
    assert {weight.dtype for weight in load_checkpoint(recipe, tmp_path / "half")["state_dict"].values()} == {
        torch.float32
    }


# The same numbers again.


def test_the_same_recipe_trains_to_the_same_numbers(
    trained: Workshop, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recipe = trained.recipes["tiny"]
    folder = train(recipe, data_dir=trained.data_dir, runs=tmp_path)
    assert folder == run_folder(tmp_path, recipe)
    assert_same_end(recipe, tmp_path, trained.runs)
    # What is printed is what is logged, and no word of Lightning's.
    out, error = capfd.readouterr()
    assert [line.split("  ") for line in out.splitlines()] == [
        [f"{key} {value}" for key, value in row.items()] for row in read_log(folder)
    ]
    assert error == ""


def test_other_warnings_than_lightnings_of_itself_stay() -> None:
    with training_train._quiet():
        warnings.warn("Checkpoint directory /runs exists and is not empty.", stacklevel=1)
        with pytest.raises(UserWarning, match="anything else"):
            warnings.warn("anything else", stacklevel=1)
    with pytest.raises(UserWarning, match="Checkpoint directory"):
        warnings.warn("Checkpoint directory /runs exists and is not empty.", stacklevel=1)


def test_another_seed_trains_to_other_numbers(trained: Workshop, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "tiny", seed=8, objective={"name": "elbo"}, training={"epochs": 1})
    folder = train(recipe, data_dir=trained.data_dir, runs=tmp_path)
    assert read_log(folder)[0] != read_log(run_folder(trained.runs, trained.recipes["tiny"]))[0]


@pytest.fixture(scope="module")
def killed(
    trained: Workshop, trained_more: Workshop, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Recipe]]:
    """Runs that were killed: two in their second epoch, and that with early stopping in its last."""
    folder = tmp_path_factory.mktemp("killed")
    recipes = {"tiny": tiny_recipe(folder, "tiny", data=NPZ)} | trained_more.recipes
    epochs = dict.fromkeys(recipes, 2)
    epochs["tiny-early"] = len(read_log(run_folder(trained_more.runs, recipes["tiny-early"])))
    for name, recipe in recipes.items():
        (folder / f"{name}.toml").write_text(to_toml(recipe))
    arguments = [str(part) for name in recipes for part in (folder / f"{name}.toml", epochs[name])]
    command = [sys.executable, "-c", KILLED, str(trained.data_dir), str(folder), *arguments]
    answer = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)
    assert answer.stdout.split() == ["-9"] * 3, answer.stderr
    for name, recipe in recipes.items():
        assert load_checkpoint(recipe, folder)["epoch"] + 1 == epochs[name] - 1
        assert len(read_log(run_folder(folder, recipe))) == epochs[name], "its last row is newer than the checkpoint"
    return folder, recipes


@pytest.mark.slow(reason="trains to be killed, and to the end")
@pytest.mark.parametrize("name", ["tiny", *MORE])
def test_a_killed_run_goes_on_to_the_same_numbers(
    killed: tuple[Path, dict[str, Recipe]],
    trained: Workshop,
    trained_more: Workshop,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    folder, recipe = killed[0], killed[1][name]
    before = load_checkpoint(recipe, folder)["epoch"] + 1
    reference = trained if name in TINY else trained_more
    epochs = len(read_log(run_folder(reference.runs, reference.recipes[name])))
    capsys.readouterr()
    train(recipe, data_dir=trained.data_dir, runs=folder)
    printed = re.findall(r"^epoch (\d+) ", capsys.readouterr().out, re.MULTILINE)
    assert printed == [str(epoch + 1) for epoch in range(before, epochs)]
    if name in TINY:  # that recipe reads the same digits from another file
        shutil.copytree(run_folder(reference.runs, reference.recipes[name]), folder / "reference" / f"{name}-1")
        checkpoint = torch.load(folder / "reference" / f"{name}-1" / "last.ckpt", weights_only=False)
        torch.save(
            checkpoint | {"recipe": recipe.model_dump(mode="json")}, folder / "reference" / f"{name}-1" / "last.ckpt"
        )
    assert_same_end(recipe, folder, folder / "reference" if name in TINY else reference.runs)


@pytest.mark.filterwarnings("ignore:The dirpath has changed from")
def test_the_log_is_written_again_if_it_is_gone(trained: Workshop, tmp_path: Path) -> None:
    """Of a run that is done, too: `export` wants it."""
    recipe = trained.recipes["tiny-2d"]
    shutil.copytree(trained.runs, tmp_path, dirs_exist_ok=True)
    (run_folder(tmp_path, recipe) / "training.csv").unlink()
    train(recipe, data_dir=trained.data_dir, runs=tmp_path)
    assert_same_end(recipe, tmp_path, trained.runs)


@pytest.mark.parametrize(("workshop", "name"), [(name, name) for name in ("tiny", "tiny-early")], indirect=["workshop"])
@pytest.mark.filterwarnings("ignore:The dirpath has changed from")
def test_a_run_that_is_done_is_left_as_it_is(
    workshop: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Whether its epochs are over or it stopped early."""
    recipe = workshop.recipes[name]
    shutil.copytree(workshop.runs, tmp_path, dirs_exist_ok=True)
    train(recipe, data_dir=workshop.data_dir, runs=tmp_path)
    assert capsys.readouterr().out == ""
    assert_same_end(recipe, tmp_path, workshop.runs)
    reports = [(run_folder(runs, recipe) / "report.json").read_bytes() for runs in (tmp_path, workshop.runs)]
    assert reports[0] == reports[1]


# Early stopping.


def test_a_run_stops_once_the_validation_loss_no_longer_falls(trained_more: Workshop) -> None:
    recipe = trained_more.recipes["tiny-early"]
    losses = [float(row["validation/negative_elbo"]) for row in read_log(run_folder(trained_more.runs, recipe))]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 2 < recipe.training.epochs
    assert load_checkpoint(recipe, trained_more.runs, "best")["epoch"] == best
    assert load_checkpoint(recipe, trained_more.runs)["epoch"] == best + 2
    folder = run_folder(trained_more.runs, recipe)
    assert sorted(path.name for path in folder.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]


def test_iwae_is_stopped_by_its_own_bound(trained_more: Workshop, tmp_path: Path) -> None:
    training = {"early_stopping_epochs": 1, "learning_rate": 0.0001, "epochs": 2}
    data = NPZ | {"validation": 50}
    recipe = tiny_recipe(tmp_path, "tiny-iwae", data=data, training=training)
    train(recipe, data_dir=trained_more.data_dir, runs=tmp_path)
    callbacks = load_checkpoint(recipe, tmp_path)["callbacks"]
    (score,) = [state["best_score"].item() for key, state in callbacks.items() if key.startswith("EarlyStop")]
    rows = read_log(run_folder(tmp_path, recipe))
    assert score == pytest.approx(min(float(row["validation/negative_iwae"]) for row in rows), abs=0.001)


# Starting anew, and checkpoints that cannot be gone on with.


def test_fresh_starts_anew(trained: Workshop, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = trained.recipes["tiny-ae"]
    shutil.copytree(trained.runs, tmp_path, dirs_exist_ok=True)
    stray = run_folder(tmp_path, recipe) / "best.ckpt"
    stray.write_bytes(b"of an earlier run")
    train(recipe, data_dir=trained.data_dir, runs=tmp_path, fresh=True)
    assert "epoch 1 " in capsys.readouterr().out
    assert_same_end(recipe, tmp_path, trained.runs)
    assert not stray.exists(), "or a run that ends before its first epoch would go on with the old one"
    assert len(list((run_folder(tmp_path, recipe) / "tensorboard").glob("events.*"))) == 1


def test_another_recipes_checkpoint_is_replaced_by_a_fresh_run(trained: Workshop, tmp_path: Path) -> None:
    other = tiny_recipe(tmp_path, "tiny-ae", latent=3)
    runs = tmp_path / "runs"
    shutil.copytree(trained.runs, runs)
    train(other, data_dir=trained.data_dir, runs=runs, fresh=True)
    assert load_checkpoint(other, runs)["recipe"]["latent"] == 3


@pytest.mark.parametrize(
    "changes",
    [{"latent": 5}, {"seed": 8}, {"training": {"learning_rate": 2e-3}}, {"description": "Another."}],
    ids=str,
)
def test_another_recipes_checkpoint_is_refused(trained: Workshop, tmp_path: Path, changes: dict[str, Any]) -> None:
    other = tiny_recipe(tmp_path, "tiny", **changes)
    before = (run_folder(trained.runs, other) / "last.ckpt").read_bytes()
    with pytest.raises(RecipeError, match=r"tiny-1/last\.ckpt is of another recipe.*--fresh"):
        train(other, data_dir=trained.data_dir, runs=trained.runs)
    assert (run_folder(trained.runs, other) / "last.ckpt").read_bytes() == before


@pytest.fixture
def rewritten(trained: Workshop, tmp_path: Path) -> Any:
    """Writes another run of `tiny`, whose checkpoint has been given to a function to change."""

    def rewrite(change: Any) -> Path:
        recipe = trained.recipes["tiny"]
        checkpoint = load_checkpoint(recipe, trained.runs)
        change(checkpoint)
        run_folder(tmp_path, recipe).mkdir()
        torch.save(checkpoint, run_folder(tmp_path, recipe) / "last.ckpt")
        return tmp_path

    return rewrite


@pytest.mark.parametrize(
    "change",
    [
        lambda checkpoint: checkpoint["recipe"]["training"].update(beta=2.0),
        lambda checkpoint: checkpoint["recipe"].pop("latent"),
        lambda checkpoint: checkpoint["recipe"]["objective"].update(beta=2.0),
        lambda checkpoint: checkpoint.pop("recipe"),
    ],
    ids=["an unknown key", "a missing key", "another value", "no recipe"],
)
def test_a_checkpoint_of_what_is_no_longer_a_recipe_is_refused(trained: Workshop, rewritten: Any, change: Any) -> None:
    runs = rewritten(change)
    with pytest.raises(RecipeError, match=r"last\.ckpt is of another recipe: train with --fresh, or name a new"):
        load_checkpoint(trained.recipes["tiny"], runs)


def test_a_checkpoint_from_before_a_key_was_added_is_of_the_same_recipe(trained: Workshop, rewritten: Any) -> None:
    def forget(checkpoint: dict[str, Any]) -> None:
        for table, key in (("training", "early_stopping_epochs"), ("objective", "beta"), ("data", "validation")):
            del checkpoint["recipe"][table][key]

    runs = rewritten(forget)
    assert load_checkpoint(trained.recipes["tiny"], runs)["epoch"] == 2


def test_a_run_of_an_earlier_version_is_not_gone_on_with(trained: Workshop, rewritten: Any) -> None:
    def age(checkpoint: dict[str, Any]) -> None:
        del checkpoint["format"]
        checkpoint["epoch"] = 1

    recipe, runs = trained.recipes["tiny"], rewritten(age)
    before = (run_folder(runs, recipe) / "last.ckpt").read_bytes()
    with pytest.raises(
        RecipeError, match=r"tiny-1 was begun by an earlier version of this program: train with --fresh$"
    ):
        train(recipe, data_dir=trained.data_dir, runs=runs)
    assert (run_folder(runs, recipe) / "last.ckpt").read_bytes() == before


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.9999, None])
def test_a_damaged_checkpoint_is_one_sentence(trained: Workshop, tmp_path: Path, share: float | None) -> None:
    recipe = trained.recipes["tiny"]
    content = (run_folder(trained.runs, recipe) / "last.ckpt").read_bytes()
    run_folder(tmp_path, recipe).mkdir()
    damaged = b"no checkpoint" if share is None else content[: int(share * len(content))]
    (run_folder(tmp_path, recipe) / "last.ckpt").write_bytes(damaged)
    with pytest.raises(RecipeError, match=r"tiny-1/last\.ckpt is damaged: train with --fresh$"):
        train(recipe, data_dir=trained.data_dir, runs=tmp_path)


def test_versions_have_runs_of_their_own(trained: Workshop, tmp_path: Path) -> None:
    next_version = tiny_recipe(tmp_path, "tiny", version=2)
    with pytest.raises(RecipeError, match=r"tiny-2/last\.ckpt is absent"):
        load_checkpoint(next_version, trained.runs)


# Devices.


@pytest.mark.parametrize(
    ("options", "environment", "processes"),
    [
        ({"devices": 2}, {}, 2),
        ({"devices": 2, "nodes": 3}, {}, 6),
        ({}, {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4"}, 4),
    ],
    ids=str,
)
def test_a_batch_that_does_not_go_into_equal_shares_is_refused(
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, int],
    environment: dict[str, str],
    processes: int,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    sentence = f"training.batch_size = 25 cannot be shared by {processes} processes"
    with pytest.raises(RecipeError, match=f"^{re.escape(sentence)}$"):
        train(
            tiny_recipe(tmp_path, "tiny"),
            data_dir=data_dir,
            runs=tmp_path / "runs",
            hardware=Hardware("cpu", **options),
        )
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("accelerator", ["auto", "cpu"])
def test_half_precision_is_refused_without_a_gpu(data_dir: Path, tmp_path: Path, accelerator: str) -> None:
    recipe = tiny_recipe(tmp_path, "tiny", training={"precision": "16-mixed"})
    with pytest.raises(RecipeError, match=r"'16-mixed' needs a GPU"):
        train(recipe, data_dir=data_dir, runs=tmp_path / "runs", hardware=Hardware(accelerator))
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def shareable(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Workshop:
    """Recipes whose batches go into two equal shares, trained by one process."""
    folder = tmp_path_factory.mktemp("shareable")
    changes: dict[str, dict[str, Any]] = {
        "tiny": {"architecture": MLP, "training": {"batch_size": 50, "epochs": 2}},
        "tiny-iwae": {"architecture": MLP, "training": {"epochs": 2}},  # without dropout, which each draws for itself
    }
    recipes = {name: tiny_recipe(folder, name, data=NPZ, **options) for name, options in changes.items()}
    for name, recipe in recipes.items():
        (folder / f"{name}.toml").write_text(to_toml(recipe))
        assert load_recipe(str(folder / f"{name}.toml")) == recipe
        train(recipe, data_dir=data_dir, runs=folder / "runs")
    return Workshop(data_dir, recipes, folder / "runs", folder)


def assert_as_one(recipe: Recipe, runs: Path, reference: Path) -> None:
    """Log and weights are those of the run in `reference`, but for rounding."""
    for ours, theirs in zip(*(read_log(run_folder(folder, recipe)) for folder in (runs, reference)), strict=True):
        assert {name: float(value) for name, value in ours.items()} == pytest.approx(
            {name: float(value) for name, value in theirs.items()}, rel=1e-3
        )
    ours, theirs = (load_checkpoint(recipe, folder)["state_dict"] for folder in (runs, reference))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.slow(reason="starts processes that import torch")
def test_torchruns_processes_train_as_one(shareable: Workshop, tmp_path: Path) -> None:
    program, runs = tmp_path / "shared.py", tmp_path / "runs"
    program.write_text(SHARED)
    arguments = [shareable.data_dir, runs, *(shareable.models / f"{name}.toml" for name in shareable.recipes)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(program), *map(str, arguments)]
    answer = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    assert re.findall(r"^epoch (\d)", answer.stdout, re.MULTILINE) == ["1", "2"] * 2, "only one process writes"
    for recipe in shareable.recipes.values():
        assert_as_one(recipe, runs, shareable.runs)
        folder = run_folder(runs, recipe)
        assert len(list((folder / "tensorboard").glob("events.*"))) == 1
        assert sorted(path.name for path in folder.iterdir()) == [
            "last.ckpt",
            "report.json",
            "tensorboard",
            "training.csv",
        ]
        assert '"processes": 2' in (folder / "report.json").read_text()


@pytest.mark.slow(reason="starts processes that import torch")
def test_two_nodes_train_as_one(shareable: Workshop, tmp_path: Path) -> None:
    """The command of docs/training.md, on two nodes that happen to be one machine."""
    meeting = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "tiny"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", *meeting, "--rdzv-endpoint", f"127.0.0.1:{free_port()}"]
    recipe, data = shareable.models / "tiny.toml", shareable.data_dir
    options = ["--data-dir", str(data), "--runs", str(tmp_path / "runs"), "--accelerator", "cpu"]
    command = [*torchrun, "-m", "training", "train", str(recipe), *options]

    def node(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(node, range(2)))
    assert [answer.returncode for answer in answers] == [0, 0], [answer.stderr for answer in answers]
    said = "".join(answer.stdout for answer in answers)
    assert re.findall(r"^epoch (\d)", said, re.MULTILINE) == ["1", "2"], "only one process writes"
    assert_as_one(shareable.recipes["tiny"], tmp_path / "runs", shareable.runs)
    assert '"processes": 2' in (run_folder(tmp_path / "runs", shareable.recipes["tiny"]) / "report.json").read_text()


@pytest.mark.slow(reason="trains in two processes")
def test_two_devices_train_as_one(shareable: Workshop, tmp_path: Path) -> None:
    """Without torchrun the command starts itself a second time."""
    options = {"--data-dir": shareable.data_dir, "--runs": tmp_path, "--devices": 2, "--accelerator": "cpu"}
    arguments = [str(part) for option in options.items() for part in option]
    command = [sys.executable, "-m", "training", "train", str(shareable.models / "tiny.toml"), *arguments]
    answer = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=PATIENCE)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    assert re.findall(r"^epoch (\d)", answer.stdout, re.MULTILINE) == ["1", "2"]
    assert_as_one(shareable.recipes["tiny"], tmp_path, shareable.runs)
