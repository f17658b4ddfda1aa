"""What README.md shows is true: its tables, its commands, its pictures, its links."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings
from tests import pages
from tests.conftest import ROOT, Start

README, TRAINING, SETTINGS = (
    (ROOT / name).read_text() for name in ("README.md", "docs/training.md", "docs/settings.md")
)
USE = README.partition("## Use it")[2].partition("\n## ")[0]


def commands(language: str, text: str = README) -> list[str]:
    """The commands of the fenced blocks of a language."""
    return [line for block in pages.blocks(text, language) for line in pages.commands(block)]


def test_tables_are_those_of_the_code_and_the_manifests() -> None:
    command = [sys.executable, ROOT / "scripts/readme", "--check"]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ""


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented(name: str) -> None:
    assert f"| `VAE_{name.upper()}` |" in SETTINGS


def test_every_variable_that_is_named_is_one() -> None:
    known = {f"VAE_{name.upper()}" for name in Settings.model_fields} | {
        "VAE_DATA_DIR",
        "VAE_URL",
        "VAE_API_KEY",
        "VAE_",
    }
    assert set(re.findall(r"VAE_[A-Z_]*", README + SETTINGS)) <= known


def test_every_use_of_the_server_works(start: Start, tmp_path: Path) -> None:
    _, client = start()
    (shown,) = pages.blocks(USE, "json")
    answers = []
    for command in commands("sh", USE):
        script = pages.aimed(command, client)
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, (command, done)
        written = re.search(r"-o (\S+)", command)
        if written:
            magic = (tmp_path / written[1]).read_bytes()[:4]
            assert magic == {"png": b"\x89PNG", "gif": b"GIF8"}[written[1][-3:]]
        else:
            answers.append(done.stdout.decode())
            assert ('"elbo"' if "/score" in command else '"mean"') in answers[-1]
    answered, expected = json.loads(answers[0]), json.loads(shown)
    for name in ("mean", "log_std"):  # other machines round otherwise
        assert answered.pop(name) == [pytest.approx(expected.pop(name)[0], abs=1e-3)]
    assert answered == expected


def test_every_training_command_is_one() -> None:
    shown = [re.findall(r"python -m training (\w+) ([\w/-]+)", line) for line in [*commands("sh", TRAINING), README]]
    pairs = {pair for found in shown for pair in found}
    assert {command for command, _ in pairs} >= {"train", "export", "evaluate", "figures", "reduce"}
    for command, target in pairs:
        done = subprocess.run(
            [sys.executable, "-m", "training", command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "Usage" in done.stdout
        files = (f"training/recipes/{target}.toml", f"{target}.toml", f"{target}/manifest.json")
        assert any((ROOT / file).exists() for file in files), target


@pytest.mark.parametrize("target", re.findall(r"`?make (\w+)", README))
def test_every_make_target_is_one(target: str) -> None:
    if not shutil.which("make"):
        pytest.skip("make is absent")
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, check=True)


def test_every_file_that_is_named_is_there() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    named = re.findall(r"`((?:scripts|app|training|tests|docs)/[\w./-]*)`", README)
    composed = re.findall(r"-f (\S+\.yml)", README)
    for path in [*linked, *named, *composed]:
        assert (ROOT / path).exists(), path


def test_the_extras_that_are_named_are_there() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for extras in re.findall(r"'\.\[([\w,]+)\]'", README):
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", text, flags=re.MULTILINE), extra
