"""A server that commands ask, a folder that they work in, and ways to call them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from app.cli.main import main
from tests.conftest import MODELS, ROOT, Pixels, free_port, launch, png
from tests.processes import PATIENCE

Call = Callable[..., tuple[int, str, str]]


BUNDLES = ("digits-ae/1", "mnist/2", "mnist-2d/2")
"""Of those that are shipped: others may come."""


def link_bundles(models: Path) -> Path:
    """A models directory of these."""
    for bundle in BUNDLES:
        (models / bundle).parent.mkdir(parents=True)
        (models / bundle).symlink_to(MODELS / bundle)
    return models


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server on these bundles."""
    port, models = free_port(), link_bundles(tmp_path_factory.mktemp("served"))
    process = launch(port=port, models_dir=models, log_level="warning")
    address, until = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while True:
        assert process.poll() is None, process.communicate()
        try:
            httpx2.get(f"{address}/health/ready").raise_for_status()
            break
        except httpx2.HTTPError:
            assert time.monotonic() < until
            time.sleep(0.05)
    yield address
    process.terminate()
    process.communicate(timeout=PATIENCE)


@pytest.fixture
def api(url: str) -> Iterator[httpx2.Client]:
    """A client of that server."""
    with httpx2.Client(base_url=url, timeout=PATIENCE) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path, digits: Pixels, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in: `digits/` of 20 pictures, `digit.png`, and `models/`."""
    fill(tmp_path, digits)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(folder: Path, digits: Pixels) -> None:
    link_bundles(folder / "models")
    (folder / "digit.png").write_bytes(png(digits[0]))
    for name, pixels in (("digits", digits[:20]), ("scans", 255 - digits[:3])):
        (folder / name).mkdir()
        for index, image in enumerate(pixels):
            (folder / name / f"{index:02}.png").write_bytes(png(image))


@pytest.fixture
def call(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls a command in the folder: exit status, stdout, stderr."""
    monkeypatch.setenv("VAE_URL", url)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return call


def shell(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A command line as one would type it."""
    script = f'vaeserve() {{ "{sys.executable}" -m app.cli "$@"; }}; set -o pipefail; {line}'
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=surroundings(**environment), capture_output=True, timeout=120
    )


def surroundings(**environment: str) -> dict[str, str]:
    """The environment of a command that is not installed."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **environment}
