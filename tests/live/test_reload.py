"""Models that change while requests come in: not one fails, and each is answered by one bundle, whole."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient

from app.bundle.files import read_manifest, write_array, write_manifest
from tests import pages
from tests.conftest import ROOT, Pixels, Start, base64_png, damage, put_bundle
from tests.processes import PATIENCE, children, resident, sharing, until

KEY = "a-key-of-16-chars"
FIRST, SECOND = "mnist-2d/1", "mnist-2d/2"
"""Two bundles of other weights, put into the models directory under the same version."""
LATENT = {"latent": [0.5, -1.0]}


class Users:
    """Threads that encode a digit and decode a latent, again and again, each answer of which must be whole: what the
    bundles that have ever been put there under its version answer.

    One keeps its connection, the other makes a new one for each request.
    """

    def __init__(self, address: httpx2.URL, client: TestClient, digit: Pixels) -> None:
        self.address, self.body = address, {"images": [base64_png(digit)]}
        self.means, self.pictures = {}, {}
        for like in (FIRST, SECOND):
            query = dict(zip(("model", "version"), like.split("/"), strict=True))
            self.means[like] = client.post("/encode", params=query, json=self.body).json()["mean"]
            self.pictures[like] = client.get("/decode/image", params=query | LATENT).content
        self.answered, self.failures, self.seen = 0, list[Any](), set[tuple[int, str]]()

    def encoded(self, client: httpx2.Client, **query: Any) -> tuple[int, str]:
        """The version that answers, and which bundle it is."""
        answer = client.post("/encode", params=query, json=self.body)
        assert answer.status_code == 200, answer.text
        return answer.json()["version"], self.bundle(answer.json()["mean"], self.means)

    def decoded(self, client: httpx2.Client, **query: Any) -> tuple[int, str]:
        answer = client.get("/decode/image", params=query | LATENT)
        assert answer.status_code == 200, answer.text
        return int(answer.headers["x-version"]), self.bundle(answer.content, self.pictures)

    @staticmethod
    def bundle(found: Any, expected: dict[str, Any]) -> str:
        (like,) = (like for like, value in expected.items() if value == found)
        return like

    def fresh(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.address, timeout=PATIENCE)

    @contextmanager
    def at_work(self, count: int = 2) -> Iterator[None]:
        """While it lasts, they ask."""
        done = threading.Event()
        kinds = [self.keep_asking, self.ask_anew] * count
        threads = [threading.Thread(target=kind, args=[done]) for kind in kinds]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            done.set()
            for thread in threads:
                thread.join()

    def keep_asking(self, done: threading.Event) -> None:
        with self.fresh() as client:
            while not done.is_set():
                self.ask(client)

    def ask_anew(self, done: threading.Event) -> None:
        while not done.is_set():
            with self.fresh() as client:
                self.ask(client)

    def ask(self, client: httpx2.Client) -> None:
        for call in (self.encoded, self.decoded):
            try:
                self.seen.add(call(client))
                self.answered += 1
            except Exception as error:
                self.failures.append(error)


@pytest.fixture
def make_users(client: TestClient, digits: Pixels) -> Callable[[httpx2.Client], Users]:
    return lambda server: Users(server.base_url, client, digits[0])


@pytest.mark.slow(reason="loads models while users ask")
def test_under_load_a_model_is_replaced_loaded_unloaded_and_refused(
    start: Start, models_copy: Path, make_users: Callable[[httpx2.Client], Users]
) -> None:
    put_bundle(models_copy, 2, like=SECOND)
    process, client = start(models_dir=models_copy, admin_key=KEY, log_level="warning")
    client.headers["Authorization"] = f"Bearer {KEY}"
    users, memory = make_users(client), []

    def manage(path: str, **query: int) -> Any:
        answer = client.post(f"/models/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    with users.at_work():
        for turn in range(20):
            like, other = (FIRST, SECOND) if turn % 2 else (SECOND, FIRST)
            put_bundle(models_copy, 2, like=other)
            manage("mnist-2d/load", version=2)
            assert users.encoded(client) == users.decoded(client) == (2, other)
            put_bundle(models_copy, 3, like=like)
            assert manage("reload")["loaded"] == [{"name": "mnist-2d", "version": 3}]
            assert users.encoded(client) == users.decoded(client) == (3, like)
            manage("mnist-2d/unload", version=3)
            assert users.encoded(client) == (2, other)
            assert client.get("/sample", params={"version": 3}).status_code == 404
            damage(put_bundle(models_copy, 2, like=like))
            assert manage("reload")["refused"] == [{"name": "mnist-2d", "version": 2}]
            assert client.post("/models/mnist-2d/load", params={"version": 2}).status_code == 422
            assert users.encoded(client) == users.decoded(client) == (2, other)
            manage("mnist-2d/load", version=3)
            shutil.rmtree(models_copy / "mnist-2d" / "3")
            assert manage("reload")["unloaded"] == [{"name": "mnist-2d", "version": 3}]
            memory.append(resident(process.pid))
        assert until(lambda: users.answered > 200)
    assert users.failures == []
    assert users.seen >= {(2, FIRST), (2, SECOND)}
    assert users.seen <= {(version, like) for version in (2, 3) for like in (FIRST, SECOND)}
    assert memory[-1] < memory[4] + 60  # of 45 loaded models more, each of 8 MB and up, about none has stayed


def test_every_command_of_the_documentation_works(start: Start, models_copy: Path) -> None:
    for version in (1, 2):
        put_bundle(models_copy, version, name="mnist")
    _, client = start(models_dir=models_copy, admin_key=KEY)
    text = (ROOT / "docs" / "models.md").read_text()
    answers = []
    for command in pages.commands(pages.blocks(text, "sh")[0]):
        done = subprocess.run(
            ["bash", "-c", pages.aimed(command, client)],
            env={"VAE_ADMIN_KEY": KEY, "PATH": os.environ["PATH"]},
            capture_output=True,
            check=True,
        )
        answers.append(json.loads(done.stdout))
    second = [{"name": "mnist", "version": 2}]
    assert answers[1:3] == [{"unloaded": second}, {"loaded": second}]
    assert set(answers[0]) == set(
        re.findall(r"`(\w+)`", text.partition("| Does what SIGHUP does |")[2].partition("\n")[0])
    )
    assert answers[3]["versions"] == [1, 2]


def test_hangup_reloads_a_lone_process_in_place(
    start: Start, models_copy: Path, make_users: Callable[[httpx2.Client], Users], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process, client = start(models_dir=models_copy, log_level="warning", log=log)
    users = make_users(client)
    with users.at_work(1):
        put_bundle(models_copy, 2, like=SECOND)
        process.send_signal(signal.SIGHUP)
        assert until(lambda: users.encoded(client) == (2, SECOND))
        damage(put_bundle(models_copy, 2, like=FIRST))
        process.send_signal(signal.SIGHUP)
        put_bundle(models_copy, 3, like=FIRST)
        process.send_signal(signal.SIGHUP)
        assert until(lambda: users.encoded(client) == (3, FIRST))
        assert users.encoded(client, version=2) == (2, SECOND)
        (models_copy / "mnist-2d").rename(models_copy.parent / "elsewhere")
        process.send_signal(signal.SIGHUP)
        assert until(lambda: "SIGHUP: the models directory holds no bundle" in log.read_text())
        assert users.encoded(client) == (3, FIRST)
    assert users.failures == []
    process.terminate()
    process.wait(timeout=PATIENCE)
    assert "decoder.onnx does not have the sha256 that manifest.json says" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_hangup_rolls_several_workers_and_loses_nothing(
    start: Start, models_copy: Path, make_users: Callable[[httpx2.Client], Users], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process, client = start(models_dir=models_copy, workers=2, log_level="warning", log=log)
    users = make_users(client)
    assert until(lambda: len(sharing(children(process.pid))) == 2)  # both have read their models
    before = children(process.pid)
    with users.at_work():
        damage(put_bundle(models_copy, 2, like=SECOND))
        process.send_signal(signal.SIGHUP)
        assert until(lambda: "SIGHUP: the workers stay as they are: " in log.read_text())
        assert "decoder.onnx does not have the sha256" in log.read_text()
        assert children(process.pid) == before
        put_bundle(models_copy, 2, like=SECOND)
        process.send_signal(signal.SIGHUP)
        assert until(lambda: len(children(process.pid)) == 2 and not children(process.pid) & before)
        assert until(lambda: users.answered > 100 and (2, SECOND) in users.seen)
    assert users.failures == []
    assert users.seen == {(1, FIRST), (2, SECOND)}
    for _ in range(20):
        with users.fresh() as another:
            assert users.encoded(another) == (2, SECOND)
    process.terminate()
    process.wait(timeout=PATIENCE)
    assert "Traceback" not in log.read_text()


def test_hangup_on_a_bundle_that_is_whole_but_absurd_leaves_the_workers_and_the_supervisor(
    start: Start, models_copy: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    process, client = start(models_dir=models_copy, workers=2, log_level="warning", log=log)
    assert until(lambda: len(sharing(children(process.pid))) == 2)
    before = children(process.pid)
    directory = put_bundle(models_copy, 2, like=SECOND)
    manifest = read_manifest(directory)
    arrays = manifest.arrays | {"score_k": write_array(directory, "score_k", np.full(3, np.nan, np.float32))}
    write_manifest(directory, manifest.model_copy(update={"arrays": arrays}))
    process.send_signal(signal.SIGHUP)
    refusal = "SIGHUP: the workers stay as they are: mnist-2d/2/score_k.npy does not have the type int64"
    assert until(lambda: refusal in log.read_text())
    assert children(process.pid) == before
    assert client.get("/sample").status_code == 200
    process.terminate()
    process.wait(timeout=PATIENCE)
    assert "Traceback" not in log.read_text()


@pytest.mark.slow(reason="waits until workers are killed")
def test_a_worker_that_does_not_stop_holds_up_neither_a_hangup_nor_the_end(start: Start, models_copy: Path) -> None:
    process, _ = start(models_dir=models_copy, workers=2, log_level="warning", shutdown_seconds=1)
    assert until(lambda: len(sharing(children(process.pid))) == 2)
    before = children(process.pid)
    process.send_signal(signal.SIGHUP)
    try:
        assert until(lambda: len(children(process.pid)) == 3)  # the first of the new, for which the old ones wait
        for pid in before:
            os.kill(pid, signal.SIGSTOP)
        assert until(lambda: len(children(process.pid)) == 2 and not children(process.pid) & before)
        assert until(lambda: len(sharing(children(process.pid))) == 2)
        for pid in children(process.pid):
            os.kill(pid, signal.SIGSTOP)
        process.terminate()
        _, log = process.communicate(timeout=PATIENCE)
    finally:
        for pid in children(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert log.count("does not stop: it is killed") == 4
