"""docs/api.md runs: every curl line and every Python block, against a live server."""

import re
import subprocess
import sys
from pathlib import Path

from fastapi import FastAPI

from tests import pages
from tests.conftest import ROOT, Start

PAGE = (ROOT / "docs/api.md").read_text()
PROGRAM = "\n".join(pages.blocks(PAGE, "python"))
MAGIC = {"png": b"\x89PNG", "gif": b"GIF8", "webp": b"RIFF", "npy": b"\x93NUM", "npz": b"PK\x03\x04"}


def commands() -> list[str]:
    """Each curl command, its continuation lines joined."""
    return [
        f"curl {command}"
        for block in pages.blocks(PAGE, "sh")
        for command in re.split(r"^curl ", block, flags=re.M)[1:]
    ]


def expected() -> list[str]:
    """What the Python blocks say that they print."""
    found = re.findall(r"^print\(.*\)(?:\s+|\n)# (.*)$", PROGRAM, flags=re.M)
    assert len(found) == PROGRAM.count("\nprint(")
    return found


def test_the_page_runs(start: Start, tmp_path: Path) -> None:
    _, client = start()
    for command in commands():
        script = pages.aimed(command, client)
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, (command, done)
        written = re.search(r"-o (\S+\.(\w+))", command)
        if written:
            assert (tmp_path / written[1]).read_bytes()[:4] == MAGIC[written[2]], command
        else:
            assert done.stdout, command
    program = pages.aimed(PROGRAM, client)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected()


def test_every_operation_is_on_the_page(app: FastAPI) -> None:
    paths = app.openapi()["paths"]
    families = {path.split("/")[1] for path in paths} - {""}
    assert not {family for family in families if f"/{family}" not in PAGE}
