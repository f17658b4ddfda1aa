"""The ingress of the cluster, with models that run in this process."""

import asyncio
import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fastapi import FastAPI

from app.cluster.fan_out import Models
from app.cluster.ingress import ingress
from app.cluster.messages import ReplicaRequest, ReplicaResponse, call_app
from app.errors import Overloaded, VaeError
from app.main import create_app
from app.settings import Settings
from tests.conftest import MODELS

NAMES = ["mnist", "mnist-2d"]


@dataclass
class InProcess:
    """The replicas of one model: one application in this process, which stands for all of them."""

    app: FastAPI
    state: Mapping[str, Any]
    replicas: list[str]
    asked: list[ReplicaRequest] = field(default_factory=list)

    async def ask(self, request: ReplicaRequest) -> ReplicaResponse:
        self.asked.append(request)
        return await call_app(self.app, request, self.state)

    async def ask_all(self, request: ReplicaRequest) -> list[ReplicaResponse]:
        return [replace(await self.ask(request), replica=name) for name in self.replicas]


class Broken:
    """Replicas that fail or never respond."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def ask(self, _: ReplicaRequest) -> ReplicaResponse:
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()
        raise AssertionError

    async def ask_all(self, _: ReplicaRequest) -> list[ReplicaResponse]:
        return []


def asked(method: str, target: str, body: bytes = b"", **headers: str) -> ReplicaRequest:
    """A request as the ingress gets it."""
    path, _, query = target.partition("?")
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    sized = [(b"content-length", b"%d" % len(body)), *pairs]
    return ReplicaRequest({"method": method, "path": path, "query_string": query.encode(), "headers": sized}, body)


async def entered(stack: AsyncExitStack, **settings: Any) -> tuple[FastAPI, Mapping[str, Any]]:
    """A started application and the state of its lifespan."""
    app = create_app(Settings(models_dir=MODELS, **settings))
    started: Any = app.router.lifespan_context(app)
    return app, await stack.enter_async_context(started)


class Cluster:
    """Two models behind the ingress, and the server that has both of them; all on one event loop."""

    def __init__(self, runner: asyncio.Runner, stack: AsyncExitStack) -> None:
        self._runner = runner
        self.models = {
            name: InProcess(*runner.run(entered(stack, models=name, default_model=name)), [f"{name}-1", f"{name}-2"])
            for name in NAMES
        }
        self._plain = runner.run(entered(stack, models=",".join(NAMES)))

    def ask(self, *request: Any, **headers: str) -> ReplicaResponse:
        """The response of the ingress."""
        for model in self.models.values():
            model.asked.clear()
        return self.ask_of(self.models, asked(*request, **headers))

    def ask_of(self, models: Models, request: ReplicaRequest, seconds: float = 60) -> ReplicaResponse:
        """The response of an ingress of these models."""
        app = ingress(models, "mnist", seconds=seconds, limits=Settings(max_body_bytes=1000))
        return self._runner.run(call_app(app, request, {}))

    def plain(self, *request: Any) -> ReplicaResponse:
        """The response of the server of both models."""
        app, state = self._plain
        return self._runner.run(call_app(app, asked(*request), state))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        yield Cluster(runner, stack)
        runner.run(stack.aclose())


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("/sample?seed=1", "mnist"),
        ("/sample?seed=1&model=mnist-2d", "mnist-2d"),
        ("/sample?seed=1&model=nope", "mnist"),
        ("/v2/models/mnist-2d.encoder", "mnist-2d"),
        ("/docs", "mnist"),
        ("/nowhere", "mnist"),
    ],
)
def test_a_request_goes_to_one_model_and_its_response_is_returned(cluster: Cluster, target: str, name: str) -> None:
    answer, plain = cluster.ask("GET", target), cluster.plain("GET", target)
    assert [it for it, model in cluster.models.items() if model.asked] == [name]
    assert (answer.status, answer.body) == (plain.status, plain.body)


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/models", b""),
        ("GET", "/health/ready", b""),
        ("GET", "/v2/health/ready", b""),
        ("POST", "/v2/repository/index", b""),
        ("POST", "/v2/repository/index", b'{"ready": true}'),
        ("POST", "/v2/repository/index", b"no JSON"),
        ("HEAD", "/models", b""),
        ("HEAD", "/models/mnist-2d", b""),
        ("GET", "/models/mnist-2d?version=1", b""),
        ("GET", "/models/mnist", b""),
        ("GET", "/models/nope", b""),
        ("GET", "/models/mnist?version=99", b""),
        ("GET", "/health/live", b""),
        ("GET", "/v2/health/live", b""),
    ],
)
def test_all_models_together_answer_as_one_server(cluster: Cluster, method: str, target: str, body: bytes) -> None:
    answer, plain = cluster.ask(method, target, body), cluster.plain(method, target, body)
    assert (answer.status, answer.body) == (plain.status, plain.body)
    assert sorted(answer.headers) == sorted(header for header in plain.headers if header[0] != b"x-request-id")


@pytest.mark.parametrize(
    "target", ["/models", "/metrics", "/models/mnist-2d", "/sample?model=mnist&seed=1", "/openapi.json"]
)
def test_text_is_compressed_once(cluster: Cluster, target: str) -> None:
    answer, plain = cluster.ask("GET", target, accept_encoding="gzip"), cluster.ask("GET", target)
    headers = dict(answer.headers)
    assert (headers[b"content-encoding"], headers[b"vary"]) == (b"gzip", b"Accept-Encoding")
    assert headers[b"content-length"] == b"%d" % len(answer.body)
    text = gzip.decompress(answer.body)
    assert text == plain.body or (target == "/metrics" and text.startswith(b"# HELP"))
    assert dict(plain.headers)[b"vary"] == b"Accept-Encoding"


def test_statistics_are_of_every_graph(cluster: Cluster) -> None:
    answer, plain = cluster.ask("GET", "/v2/models/stats"), cluster.plain("GET", "/v2/models/stats")
    counted = [[(it["name"], it["version"]) for it in json.loads(one.body)["model_stats"]] for one in (answer, plain)]
    assert counted[0] == counted[1]


def test_liveness_is_answered_by_the_ingress_itself(cluster: Cluster) -> None:
    cluster.ask("GET", "/health/live")
    assert not any(model.asked for model in cluster.models.values())


def test_metrics_are_each_replicas_own(cluster: Cluster) -> None:
    cluster.ask("GET", "/sample?model=mnist-2d")
    lines = cluster.ask("GET", "/metrics", accept="application/openmetrics-text").body.decode().splitlines()
    for name in NAMES:
        for replica in (f"{name}-1", f"{name}-2"):
            assert f'vae_queue_rows{{deployment="{name}",replica="{replica}"}} 0.0' in lines
    assert lines.count("# TYPE vae_queue_rows gauge") == 1
    described = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(described) == len(set(described))


def test_a_replica_that_is_gone_does_not_hide_the_others_metrics(cluster: Cluster) -> None:
    models = cluster.models | {"mnist": Broken()}
    text = cluster.ask_of(models, asked("GET", "/metrics")).body
    assert b'deployment="mnist-2d"' in text
    assert b'deployment="mnist"' not in text
    assert cluster.ask_of(dict.fromkeys(NAMES, Broken()), asked("GET", "/metrics")).status == 503


def test_a_model_that_is_not_ready_makes_all_of_them_so(cluster: Cluster) -> None:
    models = cluster.models | {"mnist-2d": Broken(Overloaded("gone"))}
    for target in ("/health/ready", "/v2/health/ready", "/models"):
        answer = cluster.ask_of(models, asked("GET", target))
        assert (answer.status, dict(answer.headers)[b"retry-after"]) == (503, b"1")


@pytest.mark.parametrize(("error", "status"), [(Overloaded("full"), 503), (VaeError("a replica failed"), 500)])
@pytest.mark.parametrize("path", ["/sample", "/v2/models/mnist.decoder"])
def test_failures_are_problem_documents(cluster: Cluster, error: VaeError, status: int, path: str) -> None:
    answer = cluster.ask_of({"mnist": Broken(error)}, asked("GET", path))
    assert answer.status == status
    assert dict(answer.headers)[b"content-type"] == b"application/problem+json"
    assert ("error" in json.loads(answer.body)) == path.startswith("/v2")
    assert b"replica failed" not in answer.body


def test_a_request_without_a_response_in_time_gets_504(cluster: Cluster) -> None:
    answer = cluster.ask_of({"mnist": Broken()}, asked("GET", "/sample"), seconds=0.05)
    assert (answer.status, json.loads(answer.body)["detail"]) == (504, "no response in time")


def test_a_body_over_the_limit_reaches_no_model(cluster: Cluster) -> None:
    for announced in ({}, {"transfer_encoding": "chunked"}):
        answer = cluster.ask("POST", "/encode", bytes(1001), **announced)
        assert (answer.status, dict(answer.headers)[b"connection"]) == (413, b"close")
    assert not cluster.models["mnist"].asked


def test_rays_own_header_is_left_to_ray(cluster: Cluster) -> None:
    class Naming(Broken):
        async def ask(self, _: ReplicaRequest) -> ReplicaResponse:
            return ReplicaResponse(200, [(b"X-Request-Id", b"1"), (b"a", b"b")], b"")

    answer = cluster.ask_of({"mnist": Naming()}, asked("GET", "/sample"))
    assert answer.headers[0] == (b"a", b"b")
    assert b"x-request-id" not in {name.lower() for name, _ in answer.headers}
