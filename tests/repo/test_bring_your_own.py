"""docs/bring-your-own.md, followed as a new user would: three models of three code bases, brought and served."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.bundle.files import read_bundle
from app.bundle.manifest import Manifest
from tests.conftest import ROOT, Pixels, Start, png
from tests.pages import aimed, blocks, commands
from tests.training.test_cli import OPTIONS

pytestmark = pytest.mark.slow(reason="trains and imports models of three code bases")

PAGE = (ROOT / "docs" / "bring-your-own.md").read_text()
NAMES = ("my-vae", "my-pythae", "my-kl")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, digits: Pixels) -> Path:
    """A folder with the page's programs, the images that it speaks of, and what its commands make of them."""
    folder = tmp_path_factory.mktemp("workshop")
    np.savez(folder / "digits.npz", images=digits)
    (folder / "digit.png").write_bytes(png(digits[0]))
    for program in blocks(PAGE, "python"):
        (folder / program.splitlines()[0].removeprefix("# ")).write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": _path()}
    for command in [line for block in blocks(PAGE, "sh") for line in commands(block)]:
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert done.returncode == 0, (command, done.stderr)
        assert "Imported" in done.stdout or "training import" not in command
        assert "warning: the reconstructions" not in done.stderr
    return folder


def _path() -> str:
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def manifest_of(workshop: Path, name: str) -> Manifest:
    return read_bundle(workshop / "models" / name / "1").manifest


def test_what_was_trained_reconstructs(workshop: Path, digits: Pixels) -> None:
    for name in NAMES[:2]:
        manifest = manifest_of(workshop, name)
        nothing = (digits / 255).var(axis=0).mean()
        assert manifest.metrics["mean_squared_error"] < nothing / 2, name
        assert (manifest.latent.shape, manifest.latent.prior, manifest.stochastic) == ((8,), "standard_normal", True)
    assert manifest_of(workshop, "my-vae").likelihood == "bernoulli"
    assert "logits" not in manifest_of(workshop, "my-pythae").graphs.decoder.outputs


def test_the_map_is_of_any_size(workshop: Path) -> None:
    manifest = manifest_of(workshop, "my-kl")
    assert (manifest.image.height, manifest.latent.shape, manifest.latent.prior) == (None, (4, None, None), None)
    assert (manifest.latent.stride, manifest.latent.scaling_factor) == (2, 0.18215)


def test_they_are_served(workshop: Path, start: Start, digits: Pixels) -> None:
    models = workshop / "models"
    _, client = start(models_dir=models, default_model="my-vae")
    for command in commands(blocks(PAGE, "bash")[0]):
        subprocess.run(["bash", "-c", aimed(command, client)], cwd=workshop, capture_output=True, check=True)
    assert (workshop / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_speaks_of_options_that_are_there() -> None:
    told = set(re.findall(r"`?(--[a-z][a-z-]*)", PAGE))
    assert told <= {*OPTIONS["import"]}
    assert set(OPTIONS["import"]) - told <= {"--version", "--models", "--replace"}


def test_refusals_are_worded_as_documented() -> None:
    modules = [*(ROOT / "training" / "importing").rglob("*.py"), ROOT / "training" / "bundling" / "parity.py"]
    said = "".join(path.read_text() for path in modules)
    section = PAGE.partition("\n## What is refused\n")[2]
    documented = re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)
    assert len(documented) > 10
    assert [words for words in documented if words not in re.sub(r'"\s+f?"', "", said)] == []
