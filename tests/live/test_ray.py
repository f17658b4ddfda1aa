"""The server on a real Ray cluster of this machine: the plain one's contract, scaling, and a replica that is killed.

One cluster and one plain server for the whole file; about a gigabyte.
"""

import base64
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import httpx2
import numpy as np
import pytest
import yaml
from safetensors.numpy import save

from app.api.forms.images import EXAMPLE_IMAGE
from tests.conftest import MODELS, ROOT, Pixels, base64_png, free_port, npy, servers
from tests.document import Operation, call, operations
from tests.processes import PATIENCE, until

pytestmark = pytest.mark.slow(reason="starts a Ray cluster")

if importlib.util.find_spec("ray") is None and "CI" not in os.environ:
    pytest.skip("needs the extra ray", allow_module_level=True)

SERVED = ["digits-ae", "mnist", "mnist-2d"]
START_SECONDS, STOP_SECONDS = 150, 40
OF_THE_MOMENT = {"date", "x-queue-time", "x-inference-time", "x-total-time", "x-request-id"}
RAYS_OWN = {"server"}

DOCUMENT = json.loads((ROOT / "openapi.json").read_text())
OPERATIONS = {it.id: it for it in operations(DOCUMENT) if not it.raw.get("security")}
ADMIN_KEY = "an-admin-key-of-16"
COUNTING = {"v2_statistics", "v2_model_statistics", "v2_model_version_statistics"}
"""What they answer is of the process that answers."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster and a client of it."""

    client: httpx2.Client
    session: int

    def replicas(self, model: str) -> set[str]:
        """The replicas of a model that answer."""
        text = self.client.get("/metrics").text
        return set(re.findall(rf'^vae_queue_rows{{deployment="{model}",replica="(\w+)"}}', text, re.MULTILINE))

    def processes(self, title: str = "") -> list[int]:
        """Its processes whose command line begins so."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields, command = path.read_text().rpartition(")")[2].split(), (path.parent / "cmdline").read_text()
            except OSError:  # it ended meanwhile
                continue
            if int(fields[3]) == self.session and fields[0] != "Z" and command.startswith(title):
                found.append(int(path.parent.name))
        return found


def config(path: Path, port: int) -> Path:
    """The shipped config file, on another port and quick to scale; keys are known, but not asked for."""
    keys = path.with_name("keys")
    keys.write_text(f"operator:{ADMIN_KEY} admin\n")
    document = yaml.safe_load((ROOT / "deploy/ray/serve.yaml").read_text())
    document["http_options"] = {"host": "127.0.0.1", "port": port}
    (application,) = document["applications"]
    application["args"] |= {"models": SERVED, "models_dir": str(MODELS)}
    application["args"]["settings"] |= {"auth": "none", "keys_file": str(keys)}
    application["args"]["settings_of"] = {"mnist-2d": {"queue_rows": 100_000}}  # refusals are another test's
    named = {it["name"]: it for it in application["deployments"] if it["name"] in (*SERVED, "Ingress")}
    named["mnist"]["ray_actor_options"] = {"num_cpus": 0.25}
    named["mnist"] |= {"max_ongoing_requests": 2, "max_queued_requests": 2}
    named["mnist"]["autoscaling_config"] = {"min_replicas": 1, "max_replicas": 1}
    named["mnist-2d"]["autoscaling_config"] = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 1,
        "look_back_period_s": 15,
    }
    application["deployments"] = list(named.values())
    path.write_text(yaml.safe_dump(document))
    return path


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """A cluster, from its first answer to the end of its last process."""
    port, log = free_port(), (folder / "log").open("w+")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", config(folder / "serve.yaml", port)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    cluster = Cluster(httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE), process.pid)

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()[-4000:]
        try:
            return cluster.client.get("/health/ready").status_code == 200
        except httpx2.TransportError:
            return False

    try:
        assert until(answers, START_SECONDS), (folder / "log").read_text()[-4000:]
        yield cluster
    finally:
        cluster.client.close()
        stop(process, cluster)
        log.close()


def stop(process: subprocess.Popen[bytes], cluster: Cluster) -> None:
    """Ask the cluster to stop, and kill what does not in time, by its session."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if not until(lambda: not cluster.processes(), 10):
        for pid in cluster.processes():
            os.kill(pid, signal.SIGKILL)
    assert until(lambda: not cluster.processes())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def plain() -> Iterator[httpx2.Client]:
    """A server of the same models in one process."""
    with servers() as start:
        yield start(models_dir=MODELS, models=",".join(SERVED), log_level="warning")[1]


def same(one: Any, other: Any) -> None:
    """The two answers differ in nothing but what must differ."""
    assert other.status_code == one.status_code, other.text
    assert other.content == one.content
    expected = {name: value for name, value in one.headers.items() if name not in OF_THE_MOMENT}
    assert {n: v for n, v in other.headers.items() if n not in OF_THE_MOMENT | RAYS_OWN} == expected


IMAGES, LATENTS = np.zeros((1, 28, 28), np.uint8), np.zeros((1, 2), np.float32)
ARRAYS = {
    "application/x-npy images": npy(IMAGES),
    "application/x-npy latents": npy(LATENTS),
    "application/x-safetensors images": save({"images": IMAGES}),
    "application/x-safetensors latents": save({"latents": LATENTS}),
    "tensor/binary": bytes(4 * 2),
    "application/octet-stream": base64.b64decode(EXAMPLE_IMAGE),
}


def seeded(operation: Operation) -> Operation:
    """The operation with a seed, where it draws."""
    parameters = [it | {"example": 7} if it["name"] == "seed" else it for it in operation.parameters]
    return replace(operation, parameters=parameters)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_answers_as_the_plain_server_does(plain: httpx2.Client, cluster: Cluster, name: str) -> None:
    operation = seeded(OPERATIONS[name])
    one, other = (call(client, DOCUMENT, operation, ARRAYS) for client in (plain, cluster.client))
    assert one.status_code == 200, one.text
    if name in COUNTING:
        shape = re.compile(rb"\d+")
        assert shape.sub(b"0", other.content) == shape.sub(b"0", one.content)
    else:
        same(one, other)


@pytest.mark.parametrize("model", SERVED)
def test_each_model_answers_for_itself(plain: httpx2.Client, cluster: Cluster, digits: Pixels, model: str) -> None:
    body = {"images": [base64_png(digit) for digit in digits[:3]]}
    for path in ("/encode", "/reconstruct"):
        same(*(client.post(path, params={"model": model}, json=body) for client in (plain, cluster.client)))
    for path in (f"/models/{model}", f"/models/{model}?version=1", f"/v2/models/{model}.decoder"):
        same(*(client.get(path) for client in (plain, cluster.client)))


WRONG: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/sample?model=nope", {}),
    ("GET", "/sample?model=mnist&model=mnist-2d", {}),
    ("GET", "/sample?n=0&model=mnist-2d", {}),
    ("GET", "/sample?version=99", {}),
    ("GET", "/models/nope", {}),
    ("GET", "/models/mnist-2d?version=99", {}),
    ("GET", "/nowhere", {}),
    ("DELETE", "/encode", {}),
    ("POST", "/encode", {"content": b"{", "headers": {"Content-Type": "application/json"}}),
    ("POST", "/encode", {"content": b"x" * 100, "headers": {"Content-Type": "text/plain"}}),
    ("POST", "/encode?model=mnist-2d", {"json": {"images": ["no picture"]}}),
    ("POST", "/encode/npy", {"content": bytes(2**25 + 1), "headers": {"Content-Type": "application/x-npy"}}),
    ("POST", "/v2/models/nope.decoder/infer", {"json": {"inputs": []}}),
    ("POST", "/v2/models/mnist-2d.decoder/infer", {"json": {"inputs": []}}),
    ("POST", "/v2/repository/index", {"content": b"no JSON"}),
    ("POST", "/v2/repository/models/mnist/load", {}),
    ("GET", "/v2/models/mnist", {}),
]


@pytest.mark.parametrize(("method", "target", "options"), WRONG, ids=lambda it: it if isinstance(it, str) else "")
def test_refusals_are_the_plain_servers(
    plain: httpx2.Client, cluster: Cluster, method: str, target: str, options: dict[str, Any]
) -> None:
    one, other = (client.request(method, target, **options) for client in (plain, cluster.client))
    assert one.status_code >= 400
    same(one, other)


@pytest.mark.parametrize(
    "target", ["/", "/docs", "/openapi.json", "/static/explorer/main.js", "/models", "/sample/image?seed=3&model=mnist"]
)
def test_pages_and_heads_are_the_plain_servers(plain: httpx2.Client, cluster: Cluster, target: str) -> None:
    same(plain.get(target), cluster.client.get(target))
    same(plain.head(target), cluster.client.head(target))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/models/mnist-2d/unload", 404),
        ("/models/mnist-2d/load", 404),
        ("/v2/repository/models/mnist-2d.encoder/unload", 404),
        ("/models/reload", 405),  # a model's name like any other
    ],
)
def test_an_admin_key_manages_no_replica(cluster: Cluster, path: str, status: int) -> None:
    """A request would reach one of them."""
    answer = cluster.client.post(path, headers={"Authorization": f"Bearer {ADMIN_KEY}"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert cluster.client.get("/sample?model=mnist-2d").status_code == 200


def test_what_has_not_changed_is_not_sent_again(cluster: Cluster) -> None:
    target = "/sample/image?model=mnist-2d&version=2&seed=1"
    tag = cluster.client.get(target).headers["etag"]
    assert cluster.client.get(target, headers={"If-None-Match": tag}).status_code == 304


def test_metrics_are_of_every_replica(cluster: Cluster) -> None:
    cluster.client.get("/sample?model=mnist-2d")
    text = cluster.client.get("/metrics").text
    for model in SERVED:
        assert re.search(rf'^vae_queue_rows{{deployment="{model}",replica="\w+"}} 0.0$', text, re.MULTILINE)
    (count,) = re.findall(
        r'^vae_requests_total{deployment="mnist-2d",operation="sample",replica="\w+",status="200"} (\S+)$',
        text,
        re.MULTILINE,
    )
    assert float(count) >= 1
    assert text.count("# TYPE vae_queue_rows gauge") == 1


NPY = {"Content-Type": "application/x-npy"}
SLOW = {"model": "mnist-2d", "k": 128, "seed": 1}


@dataclass(frozen=True)
class Sent:
    """One request of a load, by the monotonic clock."""

    began: float
    ended: float
    answer: httpx2.Response


class Load:
    """Clients that send one slow request after another."""

    def __init__(self, cluster: Cluster, digits: Pixels, clients: int) -> None:
        self._client, self._body, self._stopping = cluster.client, npy(digits[:64]), Event()
        self.sent: list[Sent] = []
        self._pool = ThreadPoolExecutor(clients)
        self._running = [self._pool.submit(self._run) for _ in range(clients)]

    def _run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            answer = self._client.post("/score/npy", params=SLOW, content=self._body, headers=NPY)
            self.sent.append(Sent(began, time.monotonic(), answer))

    def kill(self, pid: int) -> float:
        """Kill a process of the cluster, and go on until a request is lost and others have begun; returns when."""
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        assert until(lambda: any(it.answer.status_code != 200 for it in list(self.sent)))
        time.sleep(1)
        return killed

    def stop(self) -> None:
        """Wait until everything that was sent has its answer; `sent` holds all of it."""
        self._stopping.set()
        for future in self._running:
            future.result(timeout=PATIENCE)
        self._pool.shutdown()


def only_what_was_in_flight_is_lost(sent: list[Sent], killed: float) -> None:
    """Something is, and every other request has its answer; `killed` is by the monotonic clock."""
    lost = [it for it in sent if it.answer.status_code != 200]
    assert lost
    for it in lost:
        assert it.began < killed < it.ended
        assert it.answer.status_code == 503
        assert it.answer.headers["retry-after"] == "1"
        assert it.answer.headers["content-type"] == "application/problem+json"
        assert it.answer.json()["type"] == "urn:vaeserve:problem:overloaded"
    assert len({it.answer.content for it in sent if it.answer.status_code == 200}) == 1
    assert any(it.began > killed for it in sent)


def test_load_brings_a_second_replica_and_a_kill_costs_only_what_was_in_flight(
    cluster: Cluster, digits: Pixels
) -> None:
    answered = re.compile(
        r'^vae_requests_total{deployment="mnist-2d",operation="\w+",replica="(\w+)",status="200"}', re.M
    )
    assert len(cluster.replicas("mnist-2d")) == 1
    load = Load(cluster, digits, clients=6)
    try:
        assert until(lambda: len(cluster.replicas("mnist-2d")) == 2)
        assert until(lambda: len(set(answered.findall(cluster.client.get("/metrics").text))) >= 2), "both have work"
        victim, _ = cluster.processes("ray::ServeReplica:vaeserve:mnist-2d")
        killed = load.kill(victim)
    finally:
        load.stop()
    only_what_was_in_flight_is_lost(load.sent, killed)
    assert until(lambda: len(cluster.replicas("mnist-2d")) == 2), "the dead replica is replaced"


def test_a_client_that_goes_away_is_counted_as_gone(cluster: Cluster, digits: Pixels) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        cluster.client.post(
            "/score/npy",
            params={"model": "mnist", "k": 128},
            content=npy(digits[:256]),
            headers=NPY,
            timeout=1,
        )
    gone = re.compile(
        r'^vae_requests_total{deployment="mnist",operation="score_npy",replica="\w+",status="499"} 1.0$', re.M
    )
    assert until(lambda: gone.search(cluster.client.get("/metrics").text) is not None)


def test_more_than_may_wait_is_refused_at_once(cluster: Cluster, digits: Pixels) -> None:
    """The deployment takes two requests at once, and lets two wait."""
    with ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(
                lambda _: cluster.client.post(
                    "/score/npy",
                    params={"model": "mnist", "k": 16},
                    content=npy(digits[:64]),
                    headers=NPY,
                ),
                range(12),
            )
        )
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 12
    for answer in refused:
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["detail"] == "too many requests wait for this model"


def test_an_ingress_that_is_killed_costs_only_what_was_in_flight(cluster: Cluster, digits: Pixels) -> None:
    """The others wait until there is another one."""
    load = Load(cluster, digits, clients=4)
    try:
        time.sleep(2)
        (victim,) = cluster.processes("ray::ServeReplica:vaeserve:Ingress")
        killed = load.kill(victim)
    finally:
        load.stop()
    only_what_was_in_flight_is_lost(load.sent, killed)
