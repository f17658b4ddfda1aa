"""The server as people start it: `python -m app` under a real uvicorn."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from app.settings import Settings
from tests.conftest import ROOT, Pixels, Start, base64_png, free_port, launch
from tests.processes import PATIENCE


def test_digits_come_back_and_the_server_stops_cleanly(start: Start, digits: Pixels) -> None:
    process, client = start()
    assert client.get("/sample/image", params={"n": 4}).content.startswith(b"\x89PNG")
    encoded = client.post("/encode", json={"images": [base64_png(digits[0])]})
    assert len(encoded.json()["mean"][0]) == 32
    assert "server" not in encoded.headers
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert "execution provider: cpu" in log
    assert "Traceback" not in log


def test_a_body_over_the_limit_is_stopped_while_it_streams(start: Start) -> None:
    _, client = start(max_body_bytes=100_000)
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 50_000

    headers = {"Content-Type": "application/json"}
    with suppress(httpx2.TransportError):  # the server may hang up while we still send
        assert client.post("/encode", content=endless(), headers=headers).status_code == 413
    assert sent < 5000  # what comes in a moment more is thrown away
    assert client.get("/health/live").status_code == 200


def test_the_path_prefix_of_a_proxy(start: Start) -> None:
    _, client = start(root_path="/vae")
    assert client.get("/openapi.json").json()["servers"] == [{"url": "/vae"}]
    assert client.get("/sample").status_code == 200


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"execution_provider": "cuda"}, "error: VAE_EXECUTION_PROVIDER is cuda, but this ONNX Runtime has no CUDA"),
        ({"execution_provider": "tpu"}, "error: VAE_EXECUTION_PROVIDER: "),
        ({"models_dir": "/nowhere"}, "error: /nowhere holds no bundle"),
        ({"default_model": "nope"}, "error: VAE_DEFAULT_MODEL is nope, but the models are "),
    ],
)
def test_what_stops_the_start_is_one_sentence(settings: dict[str, object], sentence: str) -> None:
    process = launch(port=free_port(), **settings)
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    last = log.strip().splitlines()[-1]
    assert last.startswith(sentence)
    assert "Traceback" not in log


@pytest.mark.parametrize("workers", [1, 2])
def test_a_taken_port_is_one_sentence_before_anything_is_loaded(workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = launch(port=port, workers=workers)
        _, log = process.communicate(timeout=PATIENCE)
    assert (process.returncode, log) == (1, f"error: port {port} is taken; set VAE_PORT or --port\n")


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_a_host_that_is_none_of_this_machine_is_one_sentence(host: str) -> None:
    process = launch(port=0, host=host)
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert log.startswith(f"error: VAE_HOST {host} and VAE_PORT 0 cannot be listened on: ")
    assert log.count("\n") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_port_0_takes_a_free_one_and_says_which(models_copy: Path, workers: int) -> None:
    process = launch(port=0, host="localhost", workers=workers, models_dir=models_copy)
    assert process.stderr is not None
    lines, address = [], None
    while address is None:
        lines.append(process.stderr.readline())
        assert lines[-1], lines
        address = re.search(r"answering on (http://localhost:[1-9]\d*) ", lines[-1])
    until = time.monotonic() + 30
    while True:
        try:
            assert httpx2.get(f"{address[1]}/health/ready").status_code == 200
            break
        except httpx2.ConnectError:  # the workers are starting
            assert time.monotonic() < until
            time.sleep(0.05)
    process.terminate()
    assert "Traceback" not in process.communicate(timeout=PATIENCE)[1]


def test_a_damaged_bundle_stops_the_start_by_the_files_name(models_copy: Path) -> None:
    with (models_copy / "mnist-2d" / "1" / "decoder.onnx").open("ab") as file:
        file.write(b"x")
    process = launch(port=free_port(), models_dir=models_copy)
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert log.strip().splitlines()[-1].endswith("decoder.onnx does not have the sha256 that manifest.json says")


def test_the_help_lists_every_setting_and_starts_nothing() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "app", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in Settings.model_fields:
        assert f"VAE_{name.upper()}" in shown.stdout
    refused = subprocess.run([sys.executable, "-m", "app", "--prot"], cwd=ROOT, capture_output=True, check=False)
    assert refused.returncode == 2


def test_a_misspelt_setting_is_warned_of(start: Start) -> None:
    process, _ = start(prot=9000)
    process.send_signal(signal.SIGTERM)
    assert "VAE_PROT is set, but there is no such setting" in process.communicate(timeout=PATIENCE)[1]
