"""What /metrics tells, after what happened."""

import math
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from app import __version__
from app.errors import InferenceFailed
from app.inference.latency import Latency
from app.inference.session import VERSION
from tests.conftest import MODELS, Pixels, Start, base64_png, damage, put_bundle
from tests.processes import PATIENCE, until

Samples = dict[str, float]
ADMIN = {"Authorization": "Bearer a-key-of-16-chars"}


def scrape(client: Any) -> Samples:
    """The samples, by name and labels."""
    text = client.get("/metrics").text
    return {name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.MULTILINE)}


def test_batches_are_counted_by_model_and_graph(make_client: Callable[..., TestClient], digits: Pixels) -> None:
    client = make_client()
    client.post("/encode", json={"images": [base64_png(digit) for digit in digits[:3]]})
    client.get("/sample?n=5")
    client.get("/sample?n=5")
    samples = scrape(client)
    for graph, requests, rows in (("encoder", 1, 3), ("decoder", 2, 10)):
        labels = f'{{graph="{graph}",model="mnist-2d"}}'
        assert samples[f"vae_model_rows_total{labels}"] == rows
        assert samples[f"vae_batch_size_rows_sum{labels}"] == rows
        assert samples[f"vae_queue_seconds_count{labels}"] == requests
        assert samples[f"vae_inference_seconds_count{labels}"] == samples[f"vae_batch_size_rows_count{labels}"]
        assert 0 < samples[f"vae_inference_seconds_sum{labels}"] < 30
    assert samples["vae_batch_rows_total"] == 13


def test_what_is_running(make_client: Callable[..., TestClient]) -> None:
    client = make_client(slots=3, queue_rows=77)
    samples = scrape(client)
    (build,) = [name for name in samples if name.startswith("vae_build_info")]
    assert f'version="{__version__}"' in build
    assert f'onnxruntime="{VERSION}"' in build
    assert 'execution_provider="cpu"' in build
    assert (samples["vae_slots"], samples["vae_busy_slots"], samples["vae_workers"]) == (3, 0, 1)
    assert (samples["vae_queue_capacity_rows"], samples["vae_queue_rows"]) == (77, 0)
    assert samples["vae_requests_in_progress"] == 1  # this one
    assert samples["process_resident_memory_bytes"] > 2**20
    assert samples["process_open_fds"] > 3


def test_load_unload_and_reload_change_what_is_loaded(
    make_client: Callable[..., TestClient], models_copy: Path
) -> None:
    client = make_client(admin_key="a-key-of-16-chars")

    def loaded() -> dict[int, tuple[float, float]]:
        samples, found = scrape(client), {}
        for version in (1, 2):
            labels = f'{{model="mnist-2d",version="{version}"}}'
            if f"vae_model_loaded{labels}" in samples:
                found[version] = samples[f"vae_model_loaded{labels}"], samples[f"vae_model_default{labels}"]
        return found

    assert loaded() == {1: (1, 1)}
    put_bundle(models_copy, 2)
    assert client.post("/models/reload", headers=ADMIN).status_code == 200
    assert loaded() == {1: (1, 0), 2: (1, 1)}
    client.post("/models/mnist-2d/unload?version=2", headers=ADMIN)
    assert loaded() == {1: (1, 1), 2: (0, 0)}
    client.post("/models/mnist-2d/load?version=2", headers=ADMIN)
    assert loaded() == {1: (1, 0), 2: (1, 1)}
    shutil.rmtree(models_copy / "mnist-2d" / "1")
    client.post("/models/reload", headers=ADMIN)
    assert loaded() == {1: (0, 0), 2: (1, 1)}
    assert scrape(client)["vae_bundle_refusals_total"] == 0
    damage(put_bundle(models_copy, 3))
    client.post("/models/reload", headers=ADMIN)
    assert client.post("/models/mnist-2d/load?version=3", headers=ADMIN).status_code == 422
    shutil.rmtree(models_copy / "mnist-2d")
    assert client.post("/models/reload", headers=ADMIN).status_code == 422
    assert scrape(client)["vae_bundle_refusals_total"] == 3
    assert loaded() == {1: (0, 0), 2: (1, 1)}


def test_answers_from_memory_and_those_that_were_not(make_client: Callable[..., TestClient]) -> None:
    client = make_client()
    for seed in (1, 1, 2, 1):
        client.get("/sample/image", params={"seed": seed})
    client.get("/sample/image")  # without a seed nothing is looked up
    samples = scrape(client)
    assert (samples["vae_cache_hits_total"], samples["vae_cache_misses_total"]) == (2, 2)
    assert samples["vae_cache_bytes"] > 500


def test_failures_are_no_refusals(make_client: Callable[..., TestClient]) -> None:
    client = make_client()

    class Broken:
        def run(self, *_: object) -> None:
            raise InferenceFailed("decoder failed")

    client.app_state["server"].catalog.find().graphs.sessions.decoder = Broken()
    assert client.get("/sample").status_code == 500
    samples = scrape(client)
    assert samples["vae_failed_batches_total"] == 1
    assert samples['vae_requests_total{operation="sample",status="500"}'] == 1
    assert not any(value for name, value in samples.items() if name.startswith("vae_rejections_total"))


def test_overdue_rows_count_as_having_waited(
    make_client: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "app.inference.batcher.MAX_EVENT_LOOP_LAG", math.inf
    )  # a busy machine would give a slot two batches
    client = make_client(slots=1, queue_seconds=1000, request_seconds=10_000, cache_bytes=0)
    graphs, release = client.app_state["server"].catalog.find().graphs, threading.Event()
    decoder = graphs.sessions.decoder

    class Slow:
        inputs, outputs, name = decoder.inputs, decoder.outputs, decoder.name

        def run(self, *arguments: Any) -> Any:
            release.wait(PATIENCE)
            return decoder.run(*arguments)

    graphs.sessions.decoder = Slow()
    graphs.lanes["decoder"] = replace(graphs.lanes["decoder"], latency=Latency(1.0, 1.0))  # too slow for the event loop
    threads = [threading.Thread(target=client.get, args=["/sample?n=1"]) for _ in range(3)]
    threads[0].start()
    assert until(lambda: scrape(client)["vae_busy_slots"] == 1)
    for thread in threads[1:]:
        thread.start()
    assert until(lambda: scrape(client)["vae_queue_rows"] == 2)
    busy = scrape(client)
    assert (busy["vae_busy_slots"], busy["vae_requests_in_progress"]) == (1, 4)  # of which one is the scrape
    later = SimpleNamespace(monotonic=lambda: time.monotonic() + 2000, perf_counter=time.perf_counter)
    monkeypatch.setattr("app.inference.batcher.time", later)
    release.set()
    for thread in threads:
        thread.join()
    samples, labels = scrape(client), '{graph="decoder",model="mnist-2d"}'
    assert samples['vae_rejections_total{reason="deadline-exceeded"}'] == 2
    assert samples[f"vae_queue_seconds_count{labels}"] == 3
    assert 4000 < samples[f"vae_queue_seconds_sum{labels}"] < 5000
    assert samples["vae_dropped_rows_total"] == 2
    assert (samples["vae_busy_slots"], samples["vae_requests_in_progress"]) == (0, 1)


def test_a_bundle_that_the_supervisor_refuses_is_counted(start: Start, models_copy: Path) -> None:
    process, client = start(models_dir=models_copy, log_level="critical", workers=2)
    assert until(lambda: scrape(client)["vae_workers"] == 2)
    assert scrape(client)["vae_bundle_refusals_total"] == 0
    damage(models_copy / "mnist-2d" / "1")
    process.send_signal(signal.SIGHUP)
    assert until(lambda: scrape(client)["vae_bundle_refusals_total"] == 1)
    assert scrape(client)['vae_model_loaded{model="mnist-2d",version="1"}'] == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_live_server_knows_its_connections_and_processes(start: Start, workers: int) -> None:
    process, client = start(models_dir=MODELS, log_level="warning", workers=workers)
    assert until(lambda: scrape(client)["vae_workers"] == workers)
    samples = scrape(client)
    assert samples["vae_connections"] == 1
    assert samples['vae_model_loaded{model="mnist",version="2"}'] == workers
    names = [name for name in samples if name.startswith("process_cpu_seconds_total")]
    assert len(names) == workers
    assert all(("pid=" in name) == (workers > 1) for name in names)
    assert process.poll() is None
