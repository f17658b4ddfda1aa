"""A running server and the tools for the clients that are generated from openapi.json."""

import os
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest

FOLDER = Path(__file__).parent
MODULES = FOLDER / "node_modules"


@pytest.fixture(scope="session")
def address(live: httpx2.Client) -> str:
    """Where a server answers."""
    return str(live.base_url).rstrip("/")


@pytest.fixture(scope="session")
def modules() -> None:
    """The node packages that scripts/test installs."""
    if not (shutil.which("node") and (MODULES / "typescript").is_dir()):
        skip("install Node.js 18.18 or newer with npm, then run: npm ci --prefix tests/clients")


def skip(missing: str) -> None:
    """Skip the test because something is missing, but fail in CI, which installs it."""
    pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)


def run(*command: object, folder: Path = FOLDER, **environment: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
