"""The command as it is typed: its report, its questions, its refusals of one sentence."""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest
from onnx import TensorProto, helper

from app.bundle.files import read_manifest
from tests.conftest import ROOT
from tests.processes import PATIENCE
from tests.training.importing.foreign import Linear, save
from training.__main__ import main
from training.errors import ImportRefused
from training.importing.prompt import ask

ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


class Run(Protocol):
    def __call__(self, *arguments: object) -> tuple[int, str, str]: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command without a terminal: exit status, standard output and standard error."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["training", "import", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(SystemExit) as caught:
            main()
        code, (printed, reported) = caught.value.code, capsys.readouterr()
        return (1, printed, f"{reported}{code}\n") if isinstance(code, str) else (int(code or 0), printed, reported)

    return run


@pytest.fixture
def source(linear: Linear, tmp_path: Path) -> list[Path]:
    return save(tmp_path, linear.encoder(), linear.decoder())


def test_a_bundle_and_a_report(run: Run, source: list[Path], sample_file: Path, tmp_path: Path) -> None:
    told = ("--range", "-1,1", "--output", "image", "--output-range", "0,1", "--posterior", "log-std")
    about = (
        "--license",
        "MIT",
        "--description",
        "Lines.",
        "--dataset",
        "digits",
        "--resampling",
        "box",
        "--scaling-factor",
        "0.5",
    )
    models = tmp_path / "models"
    options = (*told, *about, "--images", sample_file, "--models", models, "--force")
    code, printed, reported = run(*source, "--name", "lines", *options)
    assert code == 0, reported
    assert "warning: the reconstructions are much better with --range 0,1" in reported
    assert "reconstruction error (MSE)" in printed
    assert f"Imported: {models}/lines/1." in printed
    manifest = read_manifest(models / "lines" / "1")
    assert (manifest.license, manifest.description, manifest.training.dataset) == ("MIT", "Lines.", "digits")
    assert (manifest.latent.scaling_factor, manifest.image.resampling) == (0.5, "box")


def test_versions_count_up_and_none_is_replaced_unasked(run: Run, source: list[Path], tmp_path: Path) -> None:
    told = ("--name", "lines", "--range", "0,1", "--output", "image", "--models", tmp_path / "models")
    assert run(*source, *told)[0] == 0
    assert run(*source, *told)[0] == 0
    assert sorted(path.name for path in (tmp_path / "models" / "lines").iterdir()) == ["1", "2"]
    message = f"error: {tmp_path}/models/lines/2 is there: pass another --version, or --replace\n"
    assert run(*source, *told, "--version", 2) == (1, "", message)
    assert run(*source, *told, "--version", 2, "--replace")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--output", "image"), "pass --range: the values of black and white .*: one of 0,1; -1,1; 0,255"),
        (("--range", "0,1"), "pass --output: the decoder's output: one of image; logits; probabilities"),
        (("--heads", "a,b,c"), "--heads names one output or two"),
        (("--mean", "0.5"), "--mean and --std go together, and without --range"),
        (("--mean", "0.5", "--std", "0.5", "--range", "0,1"), "--mean and --std go together, and without --range"),
        (("--mean", "0.5,", "--std", "0.5"), "one number is expected, or one per channel"),
        (("--weights", "w.pt"), "--weights and --arg go with --class"),
        (("--class", "a:B"), "--class goes without a SOURCE"),
        (("--name", "Über"), "--name consists of a-z"),
    ],
    ids=str,
)
def test_a_refusal_is_one_sentence(
    run: Run, source: list[Path], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    name = () if "--name" in arguments else ("--name", "lines")
    code, printed, reported = run(*source, *name, *arguments, "--models", tmp_path / "models")
    assert (code, printed) == (1, "")
    assert re.fullmatch(f"error: .*{message}.*\n", reported)
    assert not (tmp_path / "models").exists()


def test_all_open_questions_are_in_one_refusal(run: Run, linear: Linear, tmp_path: Path) -> None:
    encoder = linear.with_habits(layout="flat").encoder()
    encoder.graph.node.append(helper.make_node("Identity", ["log_var"], ["second"]))
    encoder.graph.output[1].name = "second"
    encoder.graph.input[0].type.tensor_type.shape.dim[1].ClearField("dim_value")
    source = save(tmp_path, encoder, linear.with_habits(layout="flat").decoder())
    code, _, reported = run(*source, "--name", "lines", "--models", tmp_path / "models")
    assert code == 1
    assert re.fullmatch(
        "error: pass --image: .*, and --output: .*, and --range: .*, and --posterior: .*: one of log-variance; .*\n",
        reported,
    )
    code, _, reported = run(*source, "--name", "lines", "--output", "image", "--image", "1x28x28", "--range", "0,1")
    assert re.fullmatch("error: pass --posterior: .*\n", reported)


@pytest.fixture
def of_four_outputs(linear: Linear, tmp_path: Path) -> list[Path]:
    """Encoder and decoder with four outputs each."""
    models = linear.encoder(), linear.decoder()
    for model, name in zip(models, ("mu", "y"), strict=True):
        for other in ("first", "second", "third")[len(model.graph.output) - 1 :]:
            model.graph.node.append(helper.make_node("Identity", [name], [other]))
            model.graph.output.append(helper.make_tensor_value_info(other, TensorProto.FLOAT, None))
            model.graph.output[-1].type.CopyFrom(model.graph.output[0].type)
    models[0].graph.node[2].output[0] = "spread"
    models[0].graph.node[3].input[1] = "spread"
    models[0].graph.output[1].name = "spread"
    return save(tmp_path, *models)


def test_outputs_are_asked_for(run: Run, of_four_outputs: list[Path]) -> None:
    code, _, reported = run(*of_four_outputs, "--name", "lines", "--range", "0,1", "--output", "image")
    assert code == 1
    picture = r"--picture: the image among the outputs of decoder\.onnx: one of y; first; second; third"
    heads = r"--heads: mean,spread: two of .*, the outputs of encoder\.onnx; or one that is both"
    assert re.fullmatch(f"error: pass {picture}, and {heads}\n", reported)


def test_a_class_tells_all_that_may_be_open_before_it_is_exported(run: Run, tmp_path: Path) -> None:
    options = ("--name", "lines", "--models", tmp_path / "models", "--posterior", "none")
    code, _, reported = run("--class", "tests.training.importing.nets:Vae", *options)
    assert code == 1
    message = "error: pass --image: .*; and unless the exported model shows them, --output: .*, and --range: .*\n"
    assert re.fullmatch(message, reported)
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("--output", "picture", ["image", "logits", "probabilities"]),
        ("--layout", "chwn", ["nchw", "nhwc", "nhw", "flat", "flat-nhwc"]),
        ("--posterior", "sigma", ["log-variance", "log-std", "variance", "std", "none"]),
        ("--prior", "uniform", ["standard-normal", "none"]),
        ("--binarization", "random", ["dynamic", "static", "none"]),
    ],
)
def test_an_unknown_choice_is_an_error_of_usage(
    run: Run, source: list[Path], tmp_path: Path, option: str, value: str, allowed: list[str]
) -> None:
    code, printed, reported = run(*source, "--name", "lines", option, value, "--models", tmp_path / "models")
    assert (code, printed) == (2, "")
    assert f"Invalid value for '{option}': '{value}' is not one of" in reported
    assert all(f"'{choice}'" in reported for choice in allowed)
    assert not (tmp_path / "models").exists()


def test_what_is_open_is_asked_at_a_terminal(of_four_outputs: list[Path], tmp_path: Path) -> None:
    outer, inner = pty.openpty()
    command = [sys.executable, "-m", "training", "import", *map(str, of_four_outputs), "--name", "lines"]
    command += ["--models", str(tmp_path / "models")]
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdin=inner, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.close(inner)
    os.write(outer, b"y\nsomething\nimage\n0,1\nmu,spread\nlog-variance\n")  # `something` is asked again
    printed, asked = process.communicate(timeout=PATIENCE)
    os.close(outer)
    assert process.returncode == 0, asked
    assert asked.count("The decoder's output (image; logits; probabilities)") == 2
    assert "The values of black and white" in asked
    assert "Imported:" in printed


def test_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(ImportRefused, match=r"^pass --image: of what size$"):
            ask("image", "Of what size", ())


def test_onnx_needs_no_torch(source: list[Path], tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None; sys.modules['diffusers'] = None\n"
        f"sys.argv[1:] = ['import', {str(source[0])!r}, {str(source[1])!r}, '--name', 'lines', '--range', '0,1', "
        f"'--output', 'image', '--models', {str(tmp_path / 'models')!r}]\n"
        "from training.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / "lines" / "1" / "manifest.json").is_file()
