"""Models that fail while they run: the request is told so, and nobody else notices."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient

from app.errors import InferenceFailed, NotFinite
from app.main import create_app
from app.settings import Settings
from tests.app.metrics.test_metrics import scrape
from tests.conftest import Start, base64_png, launch, npy, put_bundle
from tests.faults.bundles import Fault, image, put_faulty_bundle
from tests.processes import PATIENCE, until

KEY = "a-key-of-16-chars"


@pytest.fixture
def faulty(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[TestClient]:
    """A client of a model with the fault that the test is given."""
    put_faulty_bundle(tmp_path, request.param)
    with TestClient(create_app(Settings(models_dir=tmp_path)), raise_server_exceptions=False) as client:
        yield client


def encode(client: Any, *firsts: int, path: str = "/encode", **query: Any) -> Any:
    """The answer for images with these first pixels."""
    return client.post(path, json={"images": [base64_png(image(first)) for first in firsts]}, params=query)


@pytest.mark.parametrize(
    ("faulty", "detail"), [("raises", None), ("gives NaN", NotFinite.failure)], indirect=["faulty"]
)
def test_a_request_that_a_graph_fails_on_is_told_so_and_its_neighbours_are_answered(
    faulty: TestClient, detail: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with ThreadPoolExecutor(8) as pool:
        firsts = [255 if number % 4 == 0 else 0 for number in range(64)]
        answers = list(pool.map(lambda first: encode(faulty, first), firsts))
    for first, answer in zip(firsts, answers, strict=True):
        assert answer.status_code == (500 if first else 200), answer.text
        if first:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["type"].endswith(InferenceFailed.slug)
            assert answer.json().get("detail") == detail
            assert answer.json().keys() <= {"type", "title", "status", "detail"}  # nothing of the library's words
        else:
            assert answer.json()["mean"] == [[0.0, pytest.approx(0.2)]]
    assert faulty.get("/health/ready").status_code == 200
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    errors = [record.message for record in failures if record.name != "app.requests"]  # which tells of the answer
    assert set(errors) == {"faulty/1/encoder.onnx failed" + (": `mean` is not finite" if detail else "")}
    assert detail is None or not any(record.exc_info for record in failures)  # one line: any client can cause it
    assert len(errors) == sum(first > 0 for first in firsts)


@pytest.mark.parametrize("faulty", ["raises", "gives NaN"], indirect=True)
@pytest.mark.parametrize(
    ("path", "query"), [("/encode", {"draw": True}), ("/reconstruct", {}), ("/reconstruct", {"mode": "predictive"})]
)
def test_every_operation_on_it_fails_alike(faulty: TestClient, path: str, query: dict[str, Any]) -> None:
    assert encode(faulty, 255, path=path, **query).status_code == 500
    assert encode(faulty, 0, path=path, **query).status_code == 200
    arrays = {first: npy(np.stack([image(first)])) for first in (0, 255)}
    for first, status in ((255, 500), (0, 200)):
        answer = faulty.post(f"{path}/npy", content=arrays[first], headers={"Content-Type": "application/x-npy"})
        assert answer.status_code == status


@pytest.mark.parametrize("faulty", ["gives NaN"], indirect=True)
def test_open_inference_clients_are_told_so_too(faulty: TestClient) -> None:
    pixels = [int(level) for level in image(255).flat]
    inputs = [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "UINT8", "data": pixels}]
    answer = faulty.post("/v2/models/faulty.encoder/infer", json={"inputs": inputs})
    assert answer.status_code == 500
    assert answer.json()["error"] == f"{NotFinite.title}: {NotFinite.failure}"


LATENTS = [[0.0, 1.0], [1e3, 0.0], [-1e3, 0.0]]
"""One that the decoder makes an image of, and two of which it would make one of infinities."""
TENSOR = {"name": "latent", "shape": [1, 2], "datatype": "FP32"}
DECODES: dict[str, Callable[[Any, list[float]], Any]] = {
    "json": lambda client, latent: client.post("/decode", json={"latents": [latent]}),
    "one among others": lambda client, latent: client.post("/decode", json={"latents": [LATENTS[0], latent]}),
    "image": lambda client, latent: client.post("/decode/image", json={"latents": [latent]}),
    "link": lambda client, latent: client.get("/decode/image", params={"latent": latent}),
    "npy": lambda client, latent: client.post(
        "/decode/npy", content=npy(np.float32([latent])), headers={"Content-Type": "application/x-npy"}
    ),
    "v2": lambda client, latent: client.post(
        "/v2/models/faulty.decoder/infer", json={"inputs": [{**TENSOR, "data": latent}]}
    ),
    "remote": lambda client, latent: client.post(
        "/remote/decode",
        params={"shape": [1, 2], "dtype": "float32"},
        content=np.float32(latent).tobytes(),
        headers={"Content-Type": "tensor/binary"},
    ),
    "interpolation": lambda client, latent: client.post(
        "/interpolate", json={"points": [{"latent": LATENTS[0]}, {"latent": latent}]}
    ),
}


@pytest.mark.parametrize("faulty", ["overflows"], indirect=True)
@pytest.mark.parametrize("form", DECODES)
def test_infinities_are_no_image_in_any_form(faulty: TestClient, form: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        latents = [LATENTS[number % 3] for number in range(24)]
        answers = list(pool.map(lambda latent: DECODES[form](faulty, latent), latents))
    for latent, answer in zip(latents, answers, strict=True):
        assert answer.status_code == (200 if latent == LATENTS[0] else 500), answer.text
        if latent != LATENTS[0]:
            assert answer.json()["detail"] == NotFinite.failure


@pytest.mark.parametrize("faulty", ["gives NaN"], indirect=True)
def test_nor_are_they_remote_latents(faulty: TestClient) -> None:
    for first, status in ((0, 200), (255, 500)):
        pixels = image(first).astype(np.float32) / 127.5 - 1
        query = {"shape": [1, 1, 8, 8], "dtype": "float32"}
        headers = {"Content-Type": "tensor/binary"}
        answer = faulty.post("/remote/encode", params=query, content=pixels.tobytes(), headers=headers)
        assert answer.status_code == status, answer.text
        assert first == 0 or answer.json()["detail"] == NotFinite.failure


def test_a_graph_that_hangs_takes_one_slot_and_the_server_stops_all_the_same(start: Start, tmp_path: Path) -> None:
    put_faulty_bundle(tmp_path, "takes long")
    put_bundle(tmp_path, 1)
    process, client = start(
        models_dir=tmp_path, default_model="faulty", slots=2, threads=1, shutdown_seconds=1, log_level="warning"
    )
    address = client.base_url
    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(lambda: encode(httpx2.Client(base_url=address, timeout=PATIENCE), 255))
        assert until(lambda: scrape(client)["vae_busy_slots"] == 1)
        for _ in range(20):
            answer = client.get("/sample/npy", params={"model": "mnist-2d", "version": 1, "n": 64})
            assert answer.status_code == 200
        assert client.get("/health/live").status_code == 200
        assert not hanging.done()
        process.terminate()
        answer = hanging.result()
        process.wait(timeout=PATIENCE)
    assert answer.status_code == 503
    assert answer.json()["detail"] == "the server is stopping"
    _, log = process.communicate()
    assert process.returncode == 143
    assert "the server does not stop: it is killed" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("faulty", "is_known"), [("takes long", False), ("counts far", False), ("gives NaN", True)], indirect=["faulty"]
)
def test_a_graph_whose_work_depends_on_values_never_runs_on_the_event_loop(faulty: TestClient, is_known: bool) -> None:
    graphs = faulty.app_state["server"].catalog.find().graphs
    threads = []

    class Watched:
        outputs = graphs.sessions.encoder.outputs

        def run(self, *arguments: Any) -> Any:
            threads.append(threading.current_thread().name)
            return encoder.run(*arguments)

    encoder, graphs.sessions.encoder = graphs.sessions.encoder, Watched()
    assert (graphs.lanes["encoder"].latency is not None) is is_known
    assert graphs.lanes["decoder"].latency is not None
    assert encode(faulty, 0).json()["mean"] == [[0.0, pytest.approx(0.2)]]
    if not is_known:
        assert [name.partition("_")[0] for name in threads] == ["slot"]


@pytest.mark.slow(reason="waits ten seconds for the deadline")
def test_a_graph_that_never_ends_its_warm_up_is_refused_and_later_loads_go_on(start: Start, models_copy: Path) -> None:
    process, client = start(models_dir=models_copy, admin_key=KEY, load_seconds=10, shutdown_seconds=1)
    client.headers["Authorization"] = f"Bearer {KEY}"
    directory = put_faulty_bundle(models_copy, "never ends")
    assert client.post("/models/faulty/load").status_code == 422
    put_bundle(models_copy, 2)
    assert client.post("/models/mnist-2d/load").status_code == 200
    assert client.get("/sample/npy").headers["x-version"] == "2"
    process.terminate()
    _, log = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGTERM
    assert f"refused: {directory} was not loaded within 10 s (VAE_LOAD_SECONDS)" in log
    assert "Traceback" not in log


def test_a_graph_that_never_ends_its_warm_up_ends_the_start(tmp_path: Path) -> None:
    directory = put_faulty_bundle(tmp_path, "never ends")
    process = launch(models_dir=tmp_path, load_seconds=1)
    _, log = process.communicate(timeout=PATIENCE)
    assert (process.returncode, log) == (1, f"error: {directory} was not loaded within 1 s (VAE_LOAD_SECONDS)\n")


def test_each_fault_is_caused_by_some_test() -> None:
    assert set(get_args(Fault)) == {"raises", "gives NaN", "takes long", "counts far", "never ends", "overflows"}
