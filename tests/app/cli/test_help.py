"""The help: complete, light, and true: every example in it is run."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from app.cli.main import COMMANDS
from app.settings import Settings
from tests.app.cli.conftest import Call, fill, link_bundles, shell, surroundings
from tests.conftest import ROOT, Pixels, free_port, load_npz
from tests.processes import PATIENCE

NAMES = [command.__name__.lower() for commands in COMMANDS.values() for command in commands]


def examples(text: str) -> list[str]:
    """The command lines that a help shows."""
    return re.findall(r"^\s*\$ (.*vaeserve .*?)\s*$", text, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, digits: Pixels, url: str) -> Path:
    """A folder as the examples suppose it."""
    folder = tmp_path_factory.mktemp("workshop")
    fill(folder, digits)
    assert shell("vaeserve encode digits/ --output latents.npz", folder, VAE_URL=url).returncode == 0
    return folder


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_the_help_teaches_a_first_session(call: Call, arguments: tuple[str, ...]) -> None:
    status, text, told = call(*arguments)
    assert (status, told) == (0, "")
    assert all(re.search(rf"^│ {command} +\w", text, flags=re.MULTILINE) for command in NAMES)
    assert {line.split()[1] for line in examples(text)} == {"serve", "models", "sample", "encode", "interpolate"}


def test_the_first_session_runs_in_an_empty_folder(call: Call, tmp_path: Path, url: str) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    link_bundles(folder / "models")
    for line in examples(call("--help")[1])[1:]:  # the first starts the server, which is there
        done = shell(line, folder, VAE_URL=url)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), (line, done)
    assert (folder / "walk.gif").read_bytes().startswith(b"GIF8")
    assert len(load_npz((folder / "latents.npz").read_bytes())["files"]) == 64


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--models-dir /nowhere", "error: /nowhere holds no bundle"),
        ("--default-model nope --models-dir models", "error: VAE_DEFAULT_MODEL is nope, but the models are "),
    ],
)
def test_what_stops_serve_is_one_sentence(workshop: Path, arguments: str, told: str) -> None:
    done = shell(f"vaeserve serve --port 0 {arguments}", workshop)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines()[-1].startswith(told)
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", [command for command in NAMES if command != "serve"])
def test_every_example_runs(call: Call, workshop: Path, url: str, command: str) -> None:
    status, text, _ = call(command, "--help")
    lines = examples(text)
    assert status == 0
    assert len(lines) >= 2
    for line in lines:
        done = shell(line, workshop, VAE_URL=url)
        assert done.returncode == 0, (line, done)
        written = re.search(r"(?:-o|--output) ([\w./]+)", line)
        assert (workshop / written[1]).exists() if written else done.stdout, (line, done)


@pytest.mark.slow(reason="starts three servers")
@pytest.mark.parametrize("index", range(3))
def test_every_way_to_serve_runs(call: Call, workshop: Path, index: int) -> None:
    lines, port = examples(call("serve", "--help")[1]), str(free_port())
    assert len(lines) == 3
    command = lines[index].replace("vaeserve", f"'{sys.executable}' -m app.cli").replace("8001", port)
    environment = surroundings() if "--port" in command else surroundings(VAE_PORT=port)
    process = subprocess.Popen(
        ["bash", "-c", f"exec env {command}"], cwd=workshop, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/models", process)
    finally:
        process.send_signal(signal.SIGTERM)
        assert "Traceback" not in process.communicate(timeout=PATIENCE)[1]


def wait_for(address: str, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        try:
            assert httpx2.get(address).json()["models"]
        except httpx2.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(process.poll())


def test_serve_says_that_all_settings_are_variables(call: Call) -> None:
    text = call("serve", "--help")[1]
    named = set(re.findall(r"env var: VAE_([A-Z_]+)", text))
    assert len(named) >= 6
    assert named <= {name.upper() for name in Settings.model_fields}
    assert "python -m app --help" in text


@pytest.mark.parametrize("command", NAMES)
def test_nothing_in_a_help_is_cut_short_or_unexplained(call: Call, command: str) -> None:
    text = call(command, "--help")[1]
    assert "…" not in text
    for line in re.findall(r"^│ +\*? +(-.*)│$", text, flags=re.MULTILINE):
        assert re.search(r"(\s{2,}|[>\]] )[A-Z`].*\w", line), line


def test_the_version(call: Call) -> None:
    from app import __version__

    assert call("--version") == (0, f"{__version__}\n", "")


def test_the_server_needs_nothing_of_the_command_line() -> None:
    program = (
        "import sys; import app.__main__, app.main; print({'typer', 'rich', 'httpx2', 'app.cli'} & set(sys.modules))"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_the_help_needs_nothing_of_the_server() -> None:
    program = "import sys, app.cli.main; print({'fastapi', 'onnxruntime', 'uvicorn'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_the_script_is_the_command() -> None:
    import tomllib

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["vaeserve"].partition(":")
    program = f"import sys; from {module} import {name}; sys.argv = ['vaeserve', '--version']; {name}()"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert (answer.returncode, answer.stderr) == (0, "")
