"""The command as it is typed: its report, its questions, its refusals of one sentence."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from app.bundle.manifest import read_manifest
from tests.conftest import ROOT
from tests.training.importing.foreign import Linear, save
from training.errors import ImportRefused
from training.importing.prompt import ask

ENVIRONMENT = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "training", "import", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def source(linear: Linear, tmp_path: Path) -> list[Path]:
    return save(tmp_path, linear.encoder(), linear.decoder())


def test_a_bundle_and_a_report(source: list[Path], sample_file: Path, tmp_path: Path) -> None:
    told = ("--range", "-1,1", "--output", "image", "--output-range", "0,1", "--posterior", "log-std")
    about = ("--license", "MIT", "--description", "Lines.", "--dataset", "digits", "--scaling-factor", "0.5")
    models = tmp_path / "models"
    done = run(*source, "--name", "lines", *told, *about, "--images", sample_file, "--models", models, "--force")
    assert done.returncode == 0, done.stderr
    assert "warning: the images come back much better with --range 0,1" in done.stderr
    assert "reconstruction error (MSE)" in done.stdout
    assert f"Imported: {models}/lines/1." in done.stdout
    manifest = read_manifest(models / "lines" / "1")
    assert (manifest.license, manifest.description, manifest.training.dataset) == ("MIT", "Lines.", "digits")
    assert manifest.latent.scaling_factor == 0.5


def test_versions_count_up_and_none_is_replaced_unasked(source: list[Path], tmp_path: Path) -> None:
    told = ("--name", "lines", "--range", "0,1", "--output", "image", "--models", tmp_path / "models")
    assert run(*source, *told).returncode == 0
    assert run(*source, *told).returncode == 0
    assert sorted(path.name for path in (tmp_path / "models" / "lines").iterdir()) == ["1", "2"]
    again = run(*source, *told, "--version", 2)
    assert again.returncode == 1
    assert again.stderr == f"error: {tmp_path}/models/lines/2 is there: pass another --version, or --replace\n"
    assert run(*source, *told, "--version", 2, "--replace").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--output", "image"), "pass --range: the values of black and white .*: one of 0,1; -1,1; 0,255"),
        (("--range", "0,1"), "pass --output: what the decoder gives: one of image; logits; probabilities"),
        (("--range", "0,1", "--output", "picture"), "--output is one of image, logits, probabilities"),
        (("--layout", "chwn"), "--layout is one of nchw, nhwc, nhw, flat, flat-nhwc"),
        (("--heads", "a,b,c"), "--heads names one output or two"),
        (("--weights", "w.pt"), "--weights and --arg go with --class"),
        (("--class", "a:B"), "--class goes without a SOURCE"),
        (("--name", "Über"), "--name is made of small letters"),
    ],
    ids=str,
)
def test_a_refusal_is_one_sentence(
    source: list[Path], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    name = () if "--name" in arguments else ("--name", "lines")
    done = run(*source, *name, *arguments, "--models", tmp_path / "models")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    with pytest.raises(ImportRefused, match=message):
        raise ImportRefused(done.stderr)
    assert not (tmp_path / "models").exists()


def test_what_is_open_is_asked_at_a_terminal(source: list[Path], tmp_path: Path) -> None:
    outer, inner = pty.openpty()
    command = [sys.executable, "-m", "training", "import", *map(str, source), "--name", "lines"]
    command += ["--models", str(tmp_path / "models")]
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdin=inner, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.close(inner)
    os.write(outer, b"something\nimage\n0,1\n")  # the first is no answer, and is asked again
    printed, asked = process.communicate(timeout=300)
    os.close(outer)
    assert process.returncode == 0, asked
    assert asked.count("What the decoder gives (image; logits; probabilities)") == 2
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
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / "lines" / "1" / "manifest.json").is_file()
