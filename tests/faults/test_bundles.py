"""Bundles that are broken, change or vanish while they are read; for models that change under load, see
`tests/live/test_reload.py`."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.bundle.files import MAX_FILE_BYTES, MAX_MANIFEST_BYTES
from app.main import create_app
from app.settings import Settings
from tests.app.metrics.test_metrics import scrape
from tests.conftest import MODELS, launch, put_bundle
from tests.faults.test_disk import server
from tests.processes import PATIENCE, PATIENT

KEY = "a-key-of-16-chars"
ROUNDS = 15


@pytest.fixture
def client(make_client: Callable[..., TestClient]) -> TestClient:
    """One who may reload what is served: `mnist-2d` 1, at first."""
    client = make_client(admin_key=KEY)
    client.headers["Authorization"] = f"Bearer {KEY}"
    return client


def answered(client: TestClient) -> int:
    """The version that answers."""
    answer = client.get("/sample/npy")
    assert answer.status_code == 200, answer.text
    return int(answer.headers["x-version"])


def reloaded(client: Any) -> Any:
    answer = client.post("/models/reload")
    assert answer.status_code == 200, answer.text
    return answer.json()


def truncate(directory: Path) -> None:
    """As a copy that was broken off."""
    with (directory / "encoder.onnx").open("r+b") as file:
        file.truncate(1000)


def halve_manifest(directory: Path) -> None:
    """As an editor or a copy leaves it for a moment."""
    content = (directory / "manifest.json").read_bytes()
    (directory / "manifest.json").write_bytes(content[: len(content) // 2])


def empty_manifest(directory: Path) -> None:
    (directory / "manifest.json").write_bytes(b"")


def remove_graph(directory: Path) -> None:
    (directory / "decoder.onnx").unlink()


def put_directory(directory: Path) -> None:
    """What cannot be read is in place of a file, as where permission is denied."""
    remove_graph(directory)
    (directory / "decoder.onnx").mkdir()


def leave_dangling_link(directory: Path) -> None:
    """As a volume does that is gone."""
    remove_graph(directory)
    (directory / "decoder.onnx").symlink_to("/nowhere/decoder.onnx")


def remove_manifest(directory: Path) -> None:
    (directory / "manifest.json").unlink()


def replace_half(directory: Path) -> None:
    """As a copy over a served version leaves it for a moment: a graph of the new one, and the rest of the old one."""
    shutil.copy(MODELS / "mnist-2d/2/decoder.onnx", directory)


def remove_all(directory: Path) -> None:
    """The directory alone is left."""
    for path in directory.iterdir():
        path.unlink()


def put_pipe_for_manifest(directory: Path) -> None:
    """A named pipe, which nobody writes to."""
    remove_manifest(directory)
    os.mkfifo(directory / "manifest.json")


def put_pipe_for_graph(directory: Path) -> None:
    remove_graph(directory)
    os.mkfifo(directory / "decoder.onnx")


def link_to_device(directory: Path) -> None:
    """A device that never ends."""
    remove_graph(directory)
    (directory / "decoder.onnx").symlink_to("/dev/zero")


def write_without_end(directory: Path) -> None:
    """A manifest that is larger than any."""
    os.truncate(directory / "manifest.json", MAX_MANIFEST_BYTES + 1)


def write_graph_without_end(directory: Path) -> None:
    """A graph that is larger than any; its bytes are not on the disk."""
    os.truncate(directory / "decoder.onnx", 2 * MAX_FILE_BYTES)


DAMAGES = [
    *(put_pipe_for_manifest, put_pipe_for_graph, link_to_device, write_without_end, write_graph_without_end),
    *(truncate, halve_manifest, empty_manifest, remove_manifest, remove_graph, remove_all, put_directory),
    *(leave_dangling_link, replace_half),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_bundle_is_refused_and_what_answered_before_answers_on(
    client: TestClient, models_copy: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(put_bundle(models_copy, 2))
    for _ in range(2):
        assert reloaded(client)["refused"] == [{"name": "mnist-2d", "version": 2}]
        assert client.post("/models/mnist-2d/load", params={"version": 2}).status_code == 422
        assert answered(client) == 1
    refusals = [record for record in caplog.records if record.message.startswith("refused: ")]
    assert len(refusals) == 4
    assert not any(record.exc_info for record in refusals)  # a sentence each, which names the file
    assert all("mnist-2d/2/" in record.message for record in refusals)
    put_bundle(models_copy, 2)
    assert reloaded(client)["loaded"] == [{"name": "mnist-2d", "version": 2}]
    assert answered(client) == 2


@pytest.mark.parametrize("is_single", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_served_version_that_is_broken_on_disk_is_reported_and_served(
    models_copy: Path, damage: Callable[[Path], None], is_single: bool, caplog: pytest.LogCaptureFixture
) -> None:
    directory = models_copy / "mnist-2d" / "1"
    served, key = directory if is_single else models_copy, {"name": "mnist-2d", "version": 1}
    settings = Settings(models_dir=served, admin_key=KEY, **PATIENT)
    with TestClient(create_app(settings), headers={"Authorization": f"Bearer {KEY}"}) as client:
        damage(directory)
        for turn in (1, 2):
            caplog.clear()
            assert reloaded(client) == {"loaded": [], "unloaded": [], "kept": [key], "refused": [key]}
            (line,) = [it.message for it in caplog.records if it.message.startswith("refused: ")]
            assert f"{directory}/" in line
            assert line.endswith("; the version that is served stays")
            assert scrape(client)["vae_bundle_refusals_total"] == 2 * turn - 1
            assert client.post("/models/mnist-2d/load").status_code == 422
            assert scrape(client)["vae_broken_bundles"] == 1
            (listed,) = client.get("/models").json()["models"]
            assert listed == client.get("/models/mnist-2d").json()
            assert (listed["state"], listed["reason"]) == ("ready", "broken in the models directory: see the log")
            index = client.post("/v2/repository/index").json()
            assert {(it["state"], it["reason"]) for it in index} == {("READY", listed["reason"])}
            assert client.get("/health/ready").status_code == 200
            assert answered(client) == 1
        put_bundle(models_copy, 1)
        assert reloaded(client) == {"loaded": [], "unloaded": [], "kept": [key], "refused": []}
        assert client.get("/models/mnist-2d").json()["reason"] == ""
        assert scrape(client)["vae_broken_bundles"] == 0


def test_served_versions_that_are_gone_are_reported(client: TestClient, models_copy: Path) -> None:
    shutil.move(models_copy / "mnist-2d", models_copy.parent / "elsewhere")
    assert client.post("/models/reload").status_code == 422
    assert client.get("/models/mnist-2d").json()["reason"] == "gone from the models directory"
    assert answered(client) == 1
    shutil.move(models_copy.parent / "elsewhere", models_copy / "mnist-2d")
    assert reloaded(client)["refused"] == []
    assert client.get("/models/mnist-2d").json()["reason"] == ""


@pytest.mark.parametrize("is_single", [False, True])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (put_pipe_for_manifest, "manifest.json is not a regular file"),
        (put_pipe_for_graph, "decoder.onnx is not a regular file"),
        (link_to_device, "decoder.onnx is not a regular file"),
        (put_directory, "decoder.onnx cannot be read: Is a directory"),
        (write_without_end, "manifest.json has more than 4194304 bytes"),
    ],
)
def test_what_is_no_file_ends_the_start_with_one_sentence(
    models_copy: Path, damage: Callable[[Path], None], words: str, is_single: bool
) -> None:
    directory = models_copy / "mnist-2d" / "1"
    damage(directory)
    process = launch(models_dir=directory if is_single else models_copy)
    _, log = process.communicate(timeout=PATIENCE)
    assert (process.returncode, log) == (1, f"error: {directory}/{words}\n")


def rewrite(directory: Path) -> None:
    """Write a graph anew, in place and bit by bit."""
    content = (MODELS / "mnist-2d/1/decoder.onnx").read_bytes()
    with (directory / "decoder.onnx").open("wb", buffering=0) as file:
        for start in range(0, len(content), 50_000):
            file.write(content[start : start + 50_000])


def move_about(directory: Path) -> None:
    """Take the bundle away, and put it back."""
    shutil.rmtree(directory)
    put_bundle(directory.parent.parent, 2)


@contextmanager
def meddling(meddle: Callable[[Path], None], directory: Path) -> Iterator[None]:
    """While it lasts, a thread does so again and again."""
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            meddle(directory)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("meddle", [rewrite, move_about])
def test_a_bundle_that_changes_while_it_is_read_is_served_whole_or_not_at_all(
    client: TestClient, models_copy: Path, meddle: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    directory = put_bundle(models_copy, 2)
    expected = client.get("/sample/npy", params={"seed": 1, "version": 1}).content
    with meddling(meddle, directory):
        for _ in range(ROUNDS):
            reloaded(client)
            answered(client)
            again = client.get("/sample/npy", params={"seed": 1})
            assert (again.status_code, again.content) == (200, expected)  # a copy of the same weights
    reloaded(client)
    assert answered(client) == 2
    assert not any(record.exc_info for record in caplog.records if record.name.startswith("app."))


def test_a_bundle_that_may_not_be_read_is_refused(models_copy: Path, tmp_path: Path) -> None:
    unprivileged = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]  # root could read it otherwise
    with suppress(FileNotFoundError):
        if subprocess.run([*unprivileged, "true"], capture_output=True, check=False).returncode == 0:
            check_that_what_may_not_be_read_is_refused(unprivileged, models_copy, tmp_path)
            return
    pytest.skip("privileges cannot be given up here")


def check_that_what_may_not_be_read_is_refused(unprivileged: list[str], models: Path, folder: Path) -> None:
    command = [*unprivileged, sys.executable, "-m", "app"]
    log = folder / "log"
    with server(*command, stderr=log, VAE_MODELS_DIR=str(models), VAE_ADMIN_KEY=KEY) as (_, client):
        client.headers["Authorization"] = f"Bearer {KEY}"
        directory = put_bundle(models, 2)
        (directory / "decoder.onnx").chmod(0)
        assert reloaded(client)["refused"] == [{"name": "mnist-2d", "version": 2}]
        directory.chmod(0)
        try:
            assert reloaded(client)["loaded"] == []
            assert client.get("/sample/npy").headers["x-version"] == "1"
        finally:
            directory.chmod(0o755)
        (directory / "decoder.onnx").chmod(0o644)
        assert reloaded(client)["loaded"] == [{"name": "mnist-2d", "version": 2}]
    assert "decoder.onnx cannot be read: Permission denied" in log.read_text()
    assert "Traceback" not in log.read_text()
