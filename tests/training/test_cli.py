"""The command line: its help, its way from a recipe to a bundle, and its errors of one sentence."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.bundle.files import read_manifest
from tests.conftest import ROOT
from tests.processes import PATIENCE
from tests.training.conftest import Workshop, copy_of, write_recipe
from training.__main__ import app, main

OPTIONS = {
    "train": ["--data-dir", "--runs", "--models", "--accelerator", "--devices", "--nodes", "--compile", "--fresh"],
    "export": ["--data-dir", "--runs", "--models"],
    "evaluate": ["--data-dir", "--models", "--k", "--images", "--seed", "--dry-run"],
    "figures": ["--data-dir", "--models"],
    "posteriors": ["--data-dir", "--models"],
    "reduce": [
        *("--precision", "--only", "--bound-nats", "--bound-psnr", "--faster", "--images", "--count", "--seed"),
        *("--version", "--replace", "--data-dir", "--models"),
    ],
    "import": [
        *("--name", "--version", "--description", "--license", "--dataset", "--binarization", "--models", "--replace"),
        *("--images", "--force", "--class", "--arg", "--weights", "--encoder", "--decoder", "--image", "--layout"),
        *(
            "--bgr",
            "--range",
            "--mean",
            "--std",
            "--output",
            "--output-range",
            "--picture",
            "--heads",
            "--posterior",
            "--prior",
            "--resampling",
        ),
        *("--scaling-factor", "--shift-factor"),
    ],
}
OF_RECIPES = [command for command in OPTIONS if command != "import"]
REQUIRED = {"reduce": ["--precision", "fp16"]}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m training` as one would call it."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    command = [sys.executable, "-m", "training", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[object, str]]:
    """Call `main` with arguments: exit code or message, and what was printed."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code, capsys.readouterr().out

    return call


def test_help_lists_the_commands_in_their_order() -> None:
    answer = run("--help")
    assert (answer.returncode, answer.stderr) == (0, "")
    places = [answer.stdout.rindex(f" {command} ") for command in OPTIONS]
    assert places == sorted(places)
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert names == list(OPTIONS)


@pytest.mark.parametrize("command", OPTIONS)
def test_help_lists_a_commands_options(call: Callable[..., tuple[object, str]], command: str) -> None:
    code, text = call(command, "--help")
    assert code == 0
    listed = set(re.findall(r"--[a-z][a-z-]*", text)) - {"--help"}
    assert {option for option in listed if not option.startswith("--no-")} == set(OPTIONS[command])
    if "--data-dir" in OPTIONS[command]:
        assert "VAE_DATA_DIR" in text


def test_help_and_errors_of_usage_import_no_torch() -> None:
    heavy = "{'torch', 'lightning', 'matplotlib', 'onnx', 'numpy'}"
    program = f"import sys; import training.__main__; print({heavy} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert answer.stdout.strip() == "set()"


def test_an_error_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    answer = run("evaluate", str(tmp_path / "mnist" / "1"))
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == f"error: {tmp_path}/mnist/1/manifest.json cannot be read: No such file or directory\n"


def test_from_a_recipe_to_a_card(
    call: Callable[..., tuple[object, str]], exported: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAE_DATA_DIR", str(exported.data_dir))
    recipe, runs, models = write_recipe(tmp_path, "tiny-ae"), tmp_path / "runs", tmp_path / "models"
    bundle = models / "tiny-ae" / "1"
    code, text = call("train", recipe, "--runs", runs)
    assert code == 0
    assert f"Next: python -m training export {recipe}" in text
    assert (runs / "tiny-ae-1" / "last.ckpt").exists()

    code, text = call("export", recipe, "--runs", runs, "--models", models)
    assert code == 0
    assert f"Next: python -m training evaluate {bundle}" in text
    assert not read_manifest(bundle).metrics
    # But for date, commit and time, training and export are reproducible.
    for path in exported.bundle("tiny-ae").iterdir():
        if path.name not in ("manifest.json", "README.md", "report.json"):
            assert (bundle / path.name).read_bytes() == path.read_bytes(), path.name

    code, text = call("evaluate", bundle, "--models", models)
    assert code == 0
    assert "Reconstruction" in text
    assert f"{read_manifest(bundle).metrics['reconstruction']:.2f}" in text

    code, text = call("figures", recipe, "--models", models)
    assert code == 0
    assert str(bundle / "samples.png") in text
    assert "samples.png" in (bundle / "README.md").read_text()


def test_evaluate_takes_its_options(
    call: Callable[..., tuple[object, str]], exported: Workshop, tmp_path: Path
) -> None:
    workshop = copy_of(exported, tmp_path)
    directory = workshop.bundle("tiny")
    data = ("--data-dir", workshop.data_dir)
    code, text = call("evaluate", directory, *data, "--k", 2, "--seed", 5, "--images", 20)
    assert code == 0
    assert "k = 2" in text
    assert "20 images" in text
    assert not read_manifest(directory).metrics
    assert call("evaluate", directory, *data, "--k", 2, "--seed", 5)[0] == 0
    metrics = read_manifest(directory).metrics
    assert (metrics["k"], metrics["seed"], metrics["images"]) == (2, 5, 100)


@pytest.mark.parametrize(
    "arguments",
    [("evaluate", "x", "--k", 0), ("evaluate", "x", "--seed", -1), ("train",), ("fit", "mnist"), ("train", "x", "--k")],
    ids=str,
)
def test_wrong_usage_is_exit_code_2(call: Callable[..., tuple[object, str]], arguments: tuple[object, ...]) -> None:
    assert call(*arguments)[0] == 2


@pytest.mark.parametrize("command", OF_RECIPES)
def test_an_unknown_recipe_is_one_sentence(call: Callable[..., tuple[object, str]], command: str) -> None:
    code, text = call(command, "nope", *REQUIRED.get(command, []))
    assert re.fullmatch(r"error: no recipe at \S+nope\.toml; the recipes here are [a-z0-9, -]+", str(code))
    assert text == ""


@pytest.mark.parametrize("command", ["evaluate", "figures"])
def test_a_missing_bundle_is_one_sentence(
    call: Callable[..., tuple[object, str]], command: str, tmp_path: Path, data_dir: Path
) -> None:
    code, _ = call(command, tmp_path / "mnist" / "1", "--data-dir", data_dir)
    assert re.fullmatch(r"error: \S+manifest\.json cannot be read: No such file or directory", str(code))
    # A recipe's bundle which was not exported is no more there.
    recipe = write_recipe(tmp_path, "tiny")
    code, _ = call(command, recipe, "--data-dir", data_dir, "--models", tmp_path / "models")
    assert re.fullmatch(r"error: \S+models/tiny/1/manifest\.json cannot be read.*", str(code))


def test_a_missing_checkpoint_is_one_sentence(
    call: Callable[..., tuple[object, str]], tmp_path: Path, data_dir: Path
) -> None:
    recipe = write_recipe(tmp_path, "tiny")
    code, _ = call("export", recipe, "--data-dir", data_dir, "--runs", tmp_path, "--models", tmp_path / "models")
    assert re.fullmatch(r"error: \S+last\.ckpt is absent: train the recipe first", str(code))


@pytest.mark.parametrize("command", OF_RECIPES)
def test_missing_data_is_one_sentence(
    call: Callable[..., tuple[object, str]], command: str, tmp_path: Path, exported: Workshop
) -> None:
    recipe = write_recipe(tmp_path, "tiny")
    folders = [part for name in ("runs", "models") for part in (f"--{name}", getattr(exported, name))]
    if command == "train":
        folders = ["--runs", tmp_path / "runs"]
    elif command != "export":
        folders = folders[2:]
    code, _ = call(command, recipe, "--data-dir", tmp_path / "none", *folders, *REQUIRED.get(command, []))
    assert re.fullmatch(r"error: \S+train-images-idx3-ubyte\.gz is absent and could not be downloaded.*", str(code))


def test_reduce_says_what_was_measured_and_where_the_bundle_is(
    call: Callable[..., tuple[object, str]], tmp_path: Path, exported: Workshop
) -> None:
    bundle = copy_of(exported, tmp_path).bundle("tiny")
    code, text = call("reduce", bundle, "--precision", "fp16-stored", "--data-dir", exported.data_dir)
    assert code == 0
    assert re.match(r"-ELBO [+-]0\.0\d+ ± 0\.0\d+ nats, within 0\.1; \d\d% of the size;\n", text)
    assert f"Reduced: {bundle.parent / '2'}. Next: see its README.md" in text
    code, text = call("reduce", bundle, "--precision", "int4", "--data-dir", exported.data_dir)
    assert (code, text) == (2, "")  # a usage error, which names the choices on stderr
    code, text = call("reduce", bundle.parent / "2", "--precision", "int8", "--data-dir", exported.data_dir)
    assert str(code).endswith("tiny/2 has fp16-stored weights already, made of version 1")


def test_another_recipes_checkpoint_is_one_sentence(
    call: Callable[..., tuple[object, str]], tmp_path: Path, trained: Workshop
) -> None:
    recipe = write_recipe(tmp_path, "tiny", (trained.models.parent / "tiny.toml").read_text().replace("= 4", "= 5", 1))
    code, _ = call("train", recipe, "--data-dir", trained.data_dir, "--runs", trained.runs)
    assert re.fullmatch(r"error: \S+last\.ckpt is of another recipe: .*", str(code))


def test_a_missing_autoencoder_to_contrast_with_is_one_sentence(
    call: Callable[..., tuple[object, str]], exported: Workshop, tmp_path: Path
) -> None:
    workshop = copy_of(exported, tmp_path)
    shutil.rmtree(workshop.models / "tiny-ae")
    code, _ = call("figures", workshop.bundle("tiny-2d"), "--data-dir", workshop.data_dir, "--models", workshop.models)
    assert re.fullmatch(r"error: \S+tiny-ae holds no version of the autoencoder .*", str(code))


def test_a_broken_manifest_is_one_sentence(
    call: Callable[..., tuple[object, str]], exported: Workshop, tmp_path: Path
) -> None:
    directory = copy_of(exported, tmp_path).bundle("tiny")
    manifest = json.loads((directory / "manifest.json").read_text())
    del manifest["training"]
    (directory / "manifest.json").write_text(json.dumps(manifest))
    code, _ = call("evaluate", directory, "--data-dir", exported.data_dir)
    assert re.fullmatch(r"error: \S+manifest\.json is not a valid manifest: training: .*", str(code))


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["training", "train", "mnist"])
    monkeypatch.setattr("training.recipe.load_recipe", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main()


def test_every_error_class_is_a_command_error() -> None:
    """Or `main` would show its traceback."""
    bases = {
        node.name: [base.id for base in node.bases if isinstance(base, ast.Name)]
        for path in (ROOT / "training").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Error", "Refused"))
    }
    assert {"RecipeError", "DataError", "ParityError", "ImportRefused", "ReductionRefused"} <= set(bases)
    assert {name for name, of in bases.items() if of != ["CommandError"]} == set()


def test_what_is_not_installed_is_one_sentence() -> None:
    program = (
        "import sys; sys.modules['sklearn'] = sys.modules['scipy'] = None; import training.__main__ as m; m.main()"
    )
    command = [sys.executable, "-c", program, "evaluate", "models/mnist-2d/1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"error: \S+ is absent: install the extras, .*\n", done.stderr)


def test_a_dry_run_writes_nothing(call: Callable[..., tuple[object, str]], finished: Workshop, tmp_path: Path) -> None:
    bundle = copy_of(finished, tmp_path).bundle("tiny")
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    code, text = call("evaluate", str(bundle), "--k", "2", "--dry-run", "--data-dir", str(finished.data_dir))
    assert code == 0
    assert "NLL" in text
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
