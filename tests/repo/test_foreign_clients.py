"""What docs/open-inference-protocol.md shows is true: its commands, and what its programs print."""

import importlib.util
import re
import subprocess
import sys

import httpx2
import pytest

from tests import pages
from tests.conftest import ROOT

DOCUMENT = (ROOT / "docs/open-inference-protocol.md").read_text()
PROGRAMS = pages.blocks(DOCUMENT, "python")
LIBRARIES = ("tritonclient", "kserve", "diffusers")


def run(command: list[str], live: httpx2.Client) -> str:
    return subprocess.run(
        [pages.aimed(part, live) for part in command], capture_output=True, text=True, check=True
    ).stdout


def test_every_command_works(live: httpx2.Client) -> None:
    (block,) = pages.blocks(DOCUMENT, "sh")
    answers = [run(["bash", "-c", line], live) for line in pages.commands(block)]
    for answer, part in zip(answers, ("vaeserve", "logits", '"data":[', "READY"), strict=True):
        assert part in answer


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_program_works(live: httpx2.Client, library: str) -> None:
    (program,) = [program for program in PROGRAMS if re.search(rf"^(import|from) {library}", program, re.MULTILINE)]
    if library == "kserve" and importlib.util.find_spec("kserve") is None:
        compile(program, "kserve", "exec")
        pytest.skip("kserve is absent")
    (shown,) = re.findall(r"\)  # (.*)", program)
    assert run([sys.executable, "-c", program], live).strip() == shown


def test_no_program_is_left_out() -> None:
    assert len(PROGRAMS) == len(LIBRARIES)
