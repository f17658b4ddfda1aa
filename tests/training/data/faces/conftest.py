"""Programs in the place of Node.js, and Node.js itself."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from training.data.faces.drawing import install
from training.errors import DataError

Fake = Callable[[str, str], None]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put a shell script of this name first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def put(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def drawn_by_fakes(tmp_path: Path, fake: Fake) -> Path:
    """An npm and a node that write their arguments into the file that is returned. The node draws each face in one
    color, which depends on the face's options."""
    asked, painter = tmp_path / "asked", tmp_path / "painter.py"
    painter.write_text(
        "import hashlib, sys\n"
        "side = int(sys.argv[1])\n"
        "for line in sys.stdin.buffer.read().splitlines():\n"
        "    sys.stdout.buffer.write(hashlib.sha256(line).digest()[:3] * side**2)\n"
    )
    fake("npm", f'echo "npm $@" >> {asked}')
    fake("node", f'echo "node $@" >> {asked}; exec {sys.executable} {painter} "$2"')
    return asked


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages that draw. Without Node.js or a network the test is skipped, but not in CI."""
    folder = tmp_path_factory.mktemp("faces") / "node"
    try:
        install(folder)
    except DataError as error:
        found = shutil.which("node") and shutil.which("npm")
        missing = f"install node and npm, with a network: {error}" if not found else str(error)
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    return folder
