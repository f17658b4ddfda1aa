"""openapi.json under node: redocly's rules, and the types that openapi-typescript makes, compiled and run."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import FOLDER, MODULES, run
from tests.conftest import ROOT
from tests.pages import blocks

pytestmark = [
    pytest.mark.slow(reason="generates a client, and compiles it several times"),
    pytest.mark.usefixtures("modules"),
]

DOCUMENT = ROOT / "openapi.json"


def node(script: Path, *arguments: object, folder: Path = FOLDER) -> str:
    """What a script prints; it must succeed."""
    return run("node", script, *arguments, folder=folder)


def test_a_linter_finds_nothing() -> None:
    assert node(FOLDER / "lint.mjs", DOCUMENT) == ""


def test_the_linter_would_find_something(tmp_path: Path) -> None:
    broken = tmp_path / "openapi.json"
    broken.write_text(
        DOCUMENT.read_text(encoding="utf-8").replace('"operationId": "encode"', '"operationId": "decode"')
    )
    assert "operation-operationId-unique" in node(FOLDER / "lint.mjs", broken)


@pytest.fixture(scope="module")
def compiled(modules: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the compiled program client.js."""
    folder = tmp_path_factory.mktemp("typescript")
    for name in ("client.ts", "tsconfig.json", "package.json"):
        shutil.copy(FOLDER / name, folder)
    (folder / "node_modules").symlink_to(MODULES)
    node(MODULES / "openapi-typescript/bin/cli.js", DOCUMENT, "--output", folder / "schema.d.ts", folder=folder)
    node(MODULES / "typescript/bin/tsc", "--project", folder, folder=folder)
    return folder


def test_the_program_compiles_and_runs(compiled: Path, address: str) -> None:
    node(compiled / "client.js", address, folder=compiled)


def test_the_program_of_the_page_compiles_and_runs(compiled: Path, address: str, tmp_path: Path) -> None:
    shutil.copytree(compiled, tmp_path / "page", symlinks=True)
    (program,) = blocks((ROOT / "docs/clients.md").read_text(), "ts")
    (tmp_path / "page" / "client.ts").write_text(program.replace("http://127.0.0.1:8000", address))
    node(MODULES / "typescript/bin/tsc", "--project", tmp_path / "page", folder=tmp_path / "page")
    printed = node(tmp_path / "page" / "client.js", folder=tmp_path / "page")
    assert printed.strip() == re.findall(r"console.log\(.*\); // (.*)", program)[0]


def test_the_program_would_notice_another_server(compiled: Path) -> None:
    command = ["node", compiled / "client.js", "http://127.0.0.1:9"]
    assert subprocess.run(command, cwd=compiled, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("encoded.mean[0]", "encoded.means[0]"), ("steps: 5", 'steps: "5"'), ("found.status", "found.code")],
)
def test_a_mistake_does_not_compile(compiled: Path, tmp_path: Path, right: str, wrong: str) -> None:
    shutil.copytree(compiled, tmp_path / "wrong", symlinks=True)
    program = tmp_path / "wrong" / "client.ts"
    assert right in program.read_text()
    program.write_text(program.read_text().replace(right, wrong))
    command = ["node", MODULES / "typescript/bin/tsc", "--project", program.parent]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "client.ts" in done.stdout
    assert done.returncode != 0
