"""What the tests share: real digits, the shipped bundles, and a client of the application on them."""

import base64
import gzip
import io
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from app.bundle.files import read_manifest, write_manifest
from app.main import create_app
from app.observability.logs import JsonFormatter
from app.security.addresses import network
from app.settings import Settings
from tests.processes import PATIENCE, PATIENT, until

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models"
DATA = Path(__file__).parent / "data"

DIGITS = 5.1e-7
"""Relative error of a float in JSON, which has 7 significant digits."""
Pixels = NDArray[np.uint8]


def png(pixels: Pixels, **options: Any) -> bytes:
    """A PNG of `[H, W]` or `[H, W, C]` pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def base64_png(pixels: Pixels) -> str:
    return base64.b64encode(png(pixels)).decode()


def from_base64(text: str) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def load_npy(content: bytes) -> NDArray[Any]:
    array: NDArray[Any] = np.load(io.BytesIO(content))
    return array


def load_npz(content: bytes) -> dict[str, NDArray[Any]]:
    return dict(np.load(io.BytesIO(content)))


@pytest.fixture(scope="session")
def digits() -> Pixels:
    """The first 400 test digits of MNIST, uint8 `[400, 28, 28]`."""
    content = gzip.decompress((DATA / "digits-images-idx3-ubyte.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)


@pytest.fixture(scope="session")
def labels() -> Pixels:
    """Their labels, uint8 `[400]`."""
    content = gzip.decompress((DATA / "digits-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(content, np.uint8, offset=8)


@pytest.fixture(scope="session")
def app() -> FastAPI:
    return create_app(Settings(models_dir=MODELS, **PATIENT))


@pytest.fixture(scope="session")
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client of the application on the shipped bundles."""
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def models_copy(tmp_path: Path) -> Path:
    """A models directory with a copy of `mnist-2d` 1 alone, to damage."""
    shutil.copytree(MODELS / "mnist-2d" / "1", tmp_path / "models" / "mnist-2d" / "1")
    return tmp_path / "models"


def put_bundle(models: Path, version: int, name: str = "mnist-2d", like: str = "mnist-2d/1") -> Path:
    """Put a copy of a shipped bundle into a models directory under a name and version of one's own, at once: first
    beside it, then in place of what is there."""
    directory, part = models / name / str(version), models / name / f"{version}.part"
    shutil.copytree(MODELS / like, part)
    write_manifest(part, read_manifest(part).model_copy(update={"name": name, "version": version}))
    if directory.exists():
        shutil.rmtree(directory)
    part.rename(directory)
    return directory


def damage(directory: Path) -> None:
    """Make a bundle one that no hash fits: one byte too many."""
    with (directory / "decoder.onnx").open("ab") as file:
        file.write(b"x")


def repair(directory: Path) -> None:
    """Make a damaged bundle whole again, at once: whoever reads it meanwhile sees it either damaged or whole."""
    path = directory / "decoder.onnx"
    os.truncate(path, path.stat().st_size - 1)


@pytest.fixture
def make_client(models_copy: Path) -> Iterator[Callable[..., TestClient]]:
    """Clients of applications on a copy of `mnist-2d` with settings of one's own."""
    entered: list[TestClient] = []

    def make(**settings: Any) -> TestClient:
        client = TestClient(
            create_app(Settings(models_dir=models_copy, **PATIENT | settings)), raise_server_exceptions=False
        )
        entered.append(client.__enter__())
        return client

    yield make
    for client in entered:
        client.__exit__(None, None, None)


def full(client: TestClient, caller: str = "testclient") -> AbstractContextManager[object]:
    """While it lasts, rows of the caller fill the queue of the client's application, for its default model."""
    graphs = client.app_state["server"].catalog.find().graphs
    batcher = graphs._batcher
    held: AbstractContextManager[object] = batcher.admission.reserve(
        batcher.lane((graphs._owner, "others"), lambda _: {}), batcher.queue_rows, network(caller)
    )
    return held


Log = list[dict[str, Any]]


@pytest.fixture
def logged() -> Iterator[Callable[[], Log]]:
    """What is logged from now on, from info on, as a server that logs JSON writes it."""
    stream, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(stream), root.level
    handler.setFormatter(JsonFormatter())
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(level)


def pointers(answer: Any) -> list[str]:
    """The pointers of a 422 problem document."""
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return [error["pointer"] for error in answer.json()["errors"]]


Start = Callable[..., tuple[subprocess.Popen[str], httpx2.Client]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def servers() -> Iterator[Start]:
    """Starts servers with settings of one's own, and ends them."""
    started: list[tuple[subprocess.Popen[str], httpx2.Client]] = []

    def start(*, log: Path | None = None, **settings: object) -> tuple[subprocess.Popen[str], httpx2.Client]:
        port = free_port()
        process = launch(log=log, port=port, **settings)
        client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE)
        started.append((process, client))
        assert until(lambda: is_ready(process, client))
        return process, client

    yield start
    for process, client in started:
        client.close()
        process.terminate()  # killed, it would leave its workers behind
        process.communicate(timeout=PATIENCE)


def is_ready(process: subprocess.Popen[str], client: httpx2.Client) -> bool:
    """Whether a server, which must not have ended, answers that it is ready."""
    assert process.poll() is None, process.communicate()
    try:
        return client.get("/health/ready").status_code == 200
    except httpx2.TransportError:
        return False


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts servers for one test."""
    with servers() as start:
        yield start


@pytest.fixture(scope="session")
def live() -> Iterator[httpx2.Client]:
    """A client of a live server of the shipped bundles, which libraries of others can be pointed at."""
    with servers() as start:
        yield start(models_dir=MODELS, log_level="warning")[1]


def launch(*, log: Path | None = None, **settings: object) -> subprocess.Popen[str]:
    """A server with these settings, which logs into a pipe, or into the file `log`, to be read while it runs."""
    environment = {f"VAE_{name.upper()}": str(value) for name, value in (PATIENT | settings).items()}
    command, options = [sys.executable, "-m", "app"], {"cwd": ROOT, "env": {**os.environ, **environment}, "text": True}
    if log is None:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    with log.open("w") as stderr:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, **options)
