"""A disk that is full: where workers share their metrics, where the log goes. Nothing else is ever written."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from tests.conftest import MODELS, ROOT, Pixels, Start, free_port, png
from tests.processes import PATIENCE, children, fresh, resident, sharing, until

pytestmark = pytest.mark.slow(reason="fills disks, and sends much to servers whose disk is full")

SMALL = "mount -t tmpfs -o size=2M none "
"""Mounts a disk of 2 MB; what is behind it is a directory."""


@contextmanager
def server(*command: str, stderr: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], httpx2.Client]]:
    """A server that a command starts, and a client of it."""
    port = free_port()
    environment = os.environ | {"VAE_PORT": str(port), "VAE_MODELS_DIR": str(MODELS)} | variables
    with stderr.open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
        try:
            assert until(lambda: is_ready(client))
            yield process, client
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)


def fill(path: Path) -> None:
    """Write into a file for as long as the disk has room."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def is_ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx2.TransportError:
        return False


def visited(client: httpx2.Client, digits: Pixels) -> set[int]:
    """The statuses of some operations, by new connections, so that every worker counts what it has not before."""
    statuses = set()
    for turn in range(10):
        with fresh(client) as another:
            for path in ("/sample?n=1", "/sample/image", f"/models/nope{turn}", "/manifold/image?model=mnist-2d&n=2"):
                statuses.add(another.get(path).status_code)
            answer = another.post("/encode/files", files={"images": png(digits[:2].reshape(56, 28)) + bytes(2_000_000)})
            statuses.add(answer.status_code)
            statuses.add(another.get("/metrics").status_code)
    return statuses


def test_no_room_for_shared_metrics_is_one_sentence_at_the_start(tmp_path: Path) -> None:
    limited = (
        "import resource, runpy, sys; sys.argv = ['app'];"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "runpy.run_module('app', run_name='__main__')"
    )
    environment = os.environ | {"VAE_WORKERS": "2", "VAE_PORT": str(free_port()), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-B", "-c", limited]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("error: VAE_WORKERS above 1 needs room in a temporary directory, which TMPDIR may name: ")
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_workers_that_may_write_nothing_more_answer_and_so_do_those_that_replace_them(
    start: Start, digits: Pixels
) -> None:
    process, client = start(models_dir=MODELS, workers=2, log_level="warning", rate_limit="100000/minute")
    assert until(lambda: len(sharing(children(process.pid))) == 2)
    workers = children(process.pid)
    for pid in (process.pid, *workers):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))
    assert visited(client, digits) == {200, 404}
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    with fresh(client) as another:
        assert until(lambda: is_ready(another))
    assert not children(process.pid) & workers
    assert visited(client, digits) == {200, 404}
    process.terminate()
    _, log = process.communicate(timeout=PATIENCE)
    assert "metrics of this process are missing: File too large" in log
    assert "Traceback" not in log


def test_a_disk_that_fills_up_ends_no_worker(tmp_path: Path, digits: Pixels) -> None:
    small, log = tmp_path / "small", tmp_path / "log"
    small.mkdir()
    if subprocess.run(["unshare", "-m", "sh", "-c", SMALL + str(small)], capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    serve = f"{SMALL}{small} && exec {sys.executable} -m app"
    with server("unshare", "-m", "sh", "-c", serve, stderr=log, VAE_WORKERS="2", TMPDIR=str(small)) as (
        process,
        client,
    ):
        assert until(lambda: len(children(process.pid)) == 2)
        until(lambda: len(sharing(children(process.pid))) == 2, 5)  # ... which lie where only they can see them
        workers = children(process.pid)
        filled = Path(f"/proc/{process.pid}/root{small}/filled")
        fill(filled)
        assert visited(client, digits) == {200, 404}
        assert children(process.pid) == workers
        filled.unlink()
        assert visited(client, digits) == {200, 404}
    assert "Traceback" not in log.read_text()
    assert "died" not in log.read_text()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_log_that_cannot_be_written_holds_up_nothing(digits: Pixels, workers: str) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    patient = {"VAE_WORKERS": workers, "VAE_SHUTDOWN_SECONDS": f"{10 * PATIENCE:g}"}
    with server(sys.executable, "-m", "app", stderr=full, **patient) as (process, client):
        memory = []
        for _ in range(3):
            for _ in range(300):
                assert client.get("/models/nope").status_code == 404
            memory.append(resident(process.pid))
        assert visited(client, digits) == {200, 404}
        assert memory[-1] < memory[0] + 20
        process.terminate()
        process.wait(timeout=PATIENCE)  # long before its time is up
    assert process.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
