"""Every operation of the document, fuzzed by schemathesis: all of its checks, all of its phases, no failure, and no 5xx
but that an absurd latent overflows in the model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.conftest import MODELS, ROOT, Start
from tests.document import operations
from tests.maps import write_maps
from tests.processes import PATIENCE

pytestmark = pytest.mark.slow(
    reason="sends thousands of requests; what the document shows is asked in tests/app/api/openapi"
)

CONFIG = Path(__file__).parent / "schemathesis.toml"
PHASES = "examples,coverage,fuzzing,stateful"
KEY = "a-key-of-16-chars"
LOGGED = re.compile(
    "|".join(
        [
            r"WARNING  uvicorn\.error: Invalid HTTP request received\.",
            r"ERROR    app\.api\.middleware\.errors: \S+ failed: `\w+` is not finite request_id=\w+",
            r"ERROR    app\.requests: \S+ \S+ 500 .* problem=inference-failed .*",
        ]
    )
)
"""What is logged: no other warning, no traceback."""


MANAGE = r"/(un|re)?load$"  # these take away what the others ask, and so have a server of their own


@pytest.mark.parametrize("which", ["--exclude-path-regex", "--include-path-regex"])
def test_the_whole_document(start: Start, which: str) -> None:
    process, client = start(models_dir=MODELS, log_level="warning", admin_key=KEY)
    paths = [operation.path for operation in operations(client.get("/openapi.json").json())]
    stdout = fuzz(process, client, "--header", f"Authorization: Bearer {KEY}", which, MANAGE)
    tested = sum(bool(re.search(MANAGE, path)) == which.startswith("--include") for path in paths)
    assert f"Tested: {tested}" in stdout


@pytest.mark.parametrize("size", [None, (16, 24)])
def test_a_server_of_maps(start: Start, tmp_path: Path, size: tuple[int, int] | None) -> None:
    write_maps(tmp_path, "mnist-2d", size=size, scores=size is not None)  # which the examples ask for
    process, client = start(models_dir=tmp_path, log_level="warning")
    fuzz(process, client, "--exclude-path-regex", "^/v2")


def fuzz(process: subprocess.Popen[str], client: httpx2.Client, *options: str) -> str:
    """Fuzz a server, and end it: nothing fails, nothing is logged. Returns what is told."""
    address = f"{str(client.base_url).rstrip('/')}/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", CONFIG, "run", address, "--phases", PHASES]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    process.terminate()
    out, log = process.communicate(timeout=PATIENCE)
    assert out == ""
    unknown = [line for line in log.splitlines() if not LOGGED.fullmatch(line.partition(" ")[2])]
    assert unknown == []
    return done.stdout
