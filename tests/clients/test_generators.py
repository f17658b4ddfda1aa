"""The clients that @hey-api/openapi-ts and openapi-generator make of openapi.json, against a running server.

Each program encodes an image, uploads two, decodes to a PNG, sends an npy array, receives one, and reads an error.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import FOLDER, MODULES, run, skip
from tests.conftest import ROOT
from tests.pages import blocks, commands

pytestmark = pytest.mark.slow(reason="generates clients, and compiles them")

PAGE = (ROOT / "docs/clients.md").read_text()


def generate(tool: str, named: str, folder: Path) -> None:
    """Run the commands of docs/clients.md that generate the client `named` in `folder`."""
    shutil.copy(ROOT / "openapi.json", folder)
    (folder / "node_modules").symlink_to(MODULES)
    lines = [line for block in blocks(PAGE, "sh") for line in commands(block)]
    (shown,) = [line.split() for line in lines if line.startswith(tool) and f" {named} " in f"{line} "]
    run(*shown, folder=folder, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def compile_and_run(program: str, folder: Path, address: str) -> None:
    """Compile a TypeScript program under `strict`, and run it."""
    for name in (f"{program}.ts", "package.json", "tsconfig.json"):
        shutil.copy(FOLDER / name, folder)
    ours = {
        "noUncheckedIndexedAccess": False,
        "exactOptionalPropertyTypes": False,
        "noUnusedLocals": False,
        "lib": ["ES2022", "DOM", "DOM.Iterable"],
    }
    project = {"extends": "./tsconfig.json", "compilerOptions": ours, "files": [f"{program}.ts"]}
    (folder / "tsconfig.program.json").write_text(json.dumps(project))
    run("node", MODULES / "typescript/bin/tsc", "--project", "tsconfig.program.json", folder=folder)
    run("node", f"{program}.js", address, folder=folder)


@pytest.fixture(scope="module")
def java() -> None:
    """The Java runtime that openapi-generator needs."""
    if not shutil.which("java"):
        skip("install a Java runtime, such as Debian's default-jre-headless")


@pytest.mark.usefixtures("modules")
def test_hey_api(address: str, tmp_path: Path) -> None:
    generate("npx openapi-ts", "hey", tmp_path)
    compile_and_run("hey", tmp_path, address)


@pytest.mark.usefixtures("modules", "java")
def test_typescript_fetch(address: str, tmp_path: Path) -> None:
    generate("openapi-generator-cli", "typescript-fetch", tmp_path)
    compile_and_run("fetch", tmp_path, address)


@pytest.mark.usefixtures("java")
def test_python(address: str, tmp_path: Path) -> None:
    generate("openapi-generator-cli", "python", tmp_path)
    run(sys.executable, FOLDER / "generated.py", address, folder=tmp_path, PYTHONPATH=str(tmp_path / "generated"))


@pytest.mark.usefixtures("java")
def test_go(address: str, tmp_path: Path) -> None:
    if not shutil.which("go"):
        skip("install Go, such as Debian's golang-go")
    generate("openapi-generator-cli", "go", tmp_path)
    shutil.rmtree(tmp_path / "vaeserve" / "test")  # they import the package by a placeholder name
    shutil.copy(FOLDER / "client.go", tmp_path)
    (tmp_path / "go.mod").write_text("module client\n\ngo 1.18\n")
    run("go", "run", ".", address, folder=tmp_path, GOPROXY="off")
