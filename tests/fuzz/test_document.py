"""Every operation of the document, fuzzed by schemathesis: all of its checks, all of its phases, no failure, no 5xx."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import MODELS, ROOT, Start

CONFIG = Path(__file__).parent / "schemathesis.toml"
NO_HTTP = "WARNING:  Invalid HTTP request received."
PHASES = "examples,coverage,fuzzing,stateful"


def test_the_whole_document(start: Start) -> None:
    process, client = start(models_dir=MODELS, log_level="warning")
    address = f"{str(client.base_url).rstrip('/')}/openapi.json"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", CONFIG, "run", address, "--phases", PHASES]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    tested = len([1 for path in client.get("/openapi.json").json()["paths"].values() for _ in path])
    assert f"Tested: {tested}" in done.stdout
    process.terminate()
    out, log = process.communicate(timeout=40)
    assert out == ""
    assert set(log.splitlines()) <= {NO_HTTP}  # no other warning, no traceback
