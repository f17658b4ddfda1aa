"""The same seed gives the same bytes: alone, under load, in any batch, from any process, today and tomorrow."""

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import httpx2
import numpy as np
import pytest

from app.inference.batcher import Batcher
from app.vae.catalog import load_catalog
from app.vae.vae import Vae
from tests.conftest import MODELS, Pixels, Start, base64_png, npy
from tests.processes import PATIENCE

NPY = {"Content-Type": "application/x-npy"}
SEEDS = 1000
SIZES = (1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 100, 128, 255)
FEW, SLOW = 100, pytest.mark.slow(reason="asks more of the same")

Call = tuple[str, str, dict[str, Any], bytes | dict[str, Any] | None]


@pytest.fixture(scope="module")
def vaes() -> list[Vae]:
    return list(load_catalog(MODELS, "mnist", Batcher(), execution_providers=["cpu"]))


@pytest.mark.parametrize("sizes", [(1, 7, 16, 33), pytest.param(SIZES, marks=SLOW)], ids=["few", "all"])
@pytest.mark.parametrize("graph", ["encoder", "decoder", "score"])
def test_a_row_has_the_same_bits_in_any_batch(
    vaes: list[Vae], digits: Pixels, graph: str, sizes: tuple[int, ...]
) -> None:
    """Of every shipped graph. Did a kernel of ONNX Runtime otherwise, rows would have to be padded to fixed sizes."""
    generator = np.random.default_rng(0)
    for vae in vaes:
        if graph == "score" and not vae.manifest.stochastic:
            continue
        latents = generator.standard_normal((256, *vae.geometry.latent_shape), np.float32)
        images = digits[:256, None]
        if vae.manifest.image.channels == 3:
            images = generator.integers(0, 256, (256, 3, *(vae.geometry.size or ())), np.uint8)
        pixels = (images > 127).reshape(256, -1).astype(np.float32)
        run, rows = {
            "encoder": (vae.graphs.sessions.encode, images),
            "decoder": (vae.graphs.sessions.decode, latents),
            "score": (vae.graphs.sessions.score, np.concatenate([latents, pixels], axis=1)),
        }[graph]
        whole = run(rows)
        for size in sizes:
            parts = [run(rows[first : first + size]) for first in range(0, 256, size)]
            for name, values in whole.items():
                together = np.concatenate([part[name] for part in parts])
                assert together.tobytes() == values.tobytes(), (vae.manifest.name, vae.manifest.version, name, size)


def call(client: httpx2.Client, request: Call) -> str:
    """A hash of the answer's bytes."""
    method, path, query, body = request
    given = {"json": body} if isinstance(body, dict) else {"content": body, "headers": NPY}
    answer = client.request(method, path, params=query, **(given if body is not None else {}))  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    return hashlib.sha256(answer.content).hexdigest()


def drawing(seed: int, digits: Pixels, chooser: random.Random) -> Call:
    """A request of any operation that draws, of a light or a heavy model, of one row or several."""
    query: dict[str, Any] = {"seed": seed, "model": chooser.choice(["mnist", "mnist-2d", "mnist-2d", "mnist-iwae"])}
    some = {"images": [base64_png(digits[(seed + i) % 400]) for i in range(chooser.choice([1, 1, 3]))]}
    calls: list[Call] = [
        ("GET", "/sample/image", query | {"n": chooser.choice([1, 1, 4])}, None),
        ("GET", "/sample", query | {"n": 2, "temperature": 0.7, "truncation": 2.0}, None),
        ("GET", "/sample/npy", query | {"n": 3, "source": "aggregate", "label": seed % 10}, None),
        ("POST", "/encode", query | {"draw": True}, some),
        ("POST", "/encode/npy", query | {"draw": True}, npy(digits[seed % 300 :][:5])),
        ("POST", "/reconstruct", query | {"mode": "draw"}, some),
        ("POST", "/vary", query | {"n": 3, "radius": 2}, {"images": some["images"][:1]}),
        ("GET", "/traverse", query | {"dims": [0, 1], "steps": 3}, None),
        ("POST", "/score", query | {"k": chooser.choice([1, 4, 16]), "explain": seed % 2 == 0}, some),
    ]
    return chooser.choice(calls)


@pytest.fixture(scope="module")
def requests(digits: Pixels) -> list[Call]:
    """A request for each of a thousand seeds."""
    chooser = random.Random(0)
    return [drawing(seed, digits, chooser) for seed in range(SEEDS)]


@pytest.mark.parametrize("count", [FEW, pytest.param(SEEDS, marks=SLOW)])
def test_a_thousand_seeds_give_the_same_bytes_idle_and_under_load(
    live: httpx2.Client, start: Start, requests: list[Call], digits: Pixels, count: int
) -> None:
    idle = [call(live, request) for request in requests[:count]]

    _, loaded = start(models_dir=MODELS, cache_bytes=0, log_level="warning")  # a restart, too
    done = Event()

    def bulk(model: str) -> int:
        answered = 0
        while not (answered and done.is_set()):
            sampled = loaded.get("/sample/npy", params={"model": model, "n": 64})
            encoded = loaded.post("/encode/npy", params={"model": model}, content=npy(digits[:100]), headers=NPY)
            assert sampled.status_code == encoded.status_code == 200
            answered += 1
        return answered

    order = random.Random(1).sample(range(count), count)
    with ThreadPoolExecutor(2) as others, ThreadPoolExecutor(16) as pool:
        disturbing = [others.submit(bulk, model) for model in ("mnist", "mnist-2d")]
        try:
            found = dict(zip(order, pool.map(lambda i: call(loaded, requests[i]), order), strict=True))
        finally:
            done.set()
        assert min(future.result() for future in disturbing) > 0
    assert [found[i] for i in range(count)] == idle


@pytest.mark.slow(reason="asks several servers for all of it")
def test_every_worker_gives_the_same_bytes(live: httpx2.Client, start: Start, requests: list[Call]) -> None:
    _, several = start(workers=3, models_dir=MODELS, cache_bytes=0, log_level="warning")
    for request in requests[-FEW:][:40]:
        expected = call(live, request)
        for _ in range(3):
            with httpx2.Client(base_url=several.base_url, timeout=PATIENCE) as fresh:
                assert call(fresh, request) == expected
