"""What the forms of an operation share: the percentiles of latents."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from unittest.mock import AsyncMock

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.api.forms import writers
from app.bundle.files import read_bundle
from app.codecs import images
from app.inference.graphs import Graphs
from tests.conftest import MODELS, Pixels, base64_png, load_npz, npy, pointers


def chi_square_2(latents: Any) -> np.ndarray:
    """Per cent of a two-dimensional standard normal nearer to the origin: 1 - exp(-|z|^2 / 2)."""
    return 100 * (1 - np.exp(-np.square(latents).sum(axis=1) / 2))


def test_latents_are_placed_among_prior_draws(client: TestClient) -> None:
    body = client.get("/sample?model=mnist-2d&n=50&seed=1&percentile=true").json()
    assert np.allclose(body["latent_percentile"], chi_square_2(body["latents"]), atol=0.1)
    assert "latent_percentile" not in client.get("/sample?model=mnist-2d&seed=1").json()


def test_every_path_of_latents_is_placed(client: TestClient, digits: Pixels) -> None:
    points = {"points": [{"label": 1}, {"latent": [3, 4]}], "steps": 4}
    picture = {"images": [base64_png(digits[0])]}
    calls: list[Callable[[str], Any]] = [
        lambda query: client.post(f"/interpolate?{query}", json=points),
        lambda query: client.post(f"/vary?{query}&seed=1", json=picture),
        lambda query: client.get(f"/traverse?{query}"),
    ]
    for call in calls:
        body = call("model=mnist-2d&percentile=true").json()
        assert np.allclose(body["latent_percentile"], chi_square_2(body["latents"]), atol=0.1)


def test_posterior_means_are_placed_among_held_out_ones_and_draws_among_the_priors(
    client: TestClient, digits: Pixels
) -> None:
    images = {"images": [base64_png(digit) for digit in digits[:100]]}
    body = client.post("/encode?model=mnist-2d&percentile=true&draw=true&seed=1", json=images).json()
    arrays = read_bundle(MODELS / "mnist-2d" / "2").arrays
    squares = np.square(arrays["held_out_means"]).sum(axis=1)
    expected = [100 * (squares < np.square(mean).sum()).mean() for mean in body["mean"]]
    assert np.allclose(body["latent_percentile"], expected, atol=2)
    assert np.allclose(body["draw_percentile"], chi_square_2(body["latents"]), atol=0.1)


def test_npz_has_percentiles_too(client: TestClient, digits: Pixels) -> None:
    headers = {"Content-Type": "application/x-npy"}
    query = "/encode/npy?model=digits-ae&percentile=true"
    arrays = load_npz(client.post(query, content=npy(digits[:3]), headers=headers).content)
    assert set(arrays) == {"mean", "latent_percentile"}
    assert ((arrays["latent_percentile"] >= 0) & (arrays["latent_percentile"] <= 100)).all()


def frames(content: bytes) -> Pixels:
    """The frames of an image file, `[N, H, W, 3]`."""
    with Image.open(io.BytesIO(content)) as image:
        found = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            found.append(np.asarray(image.convert("RGB")))
        return np.stack(found)


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", "/sample/image", {"n": 5, "seed": 1, "columns": 2}),
        ("GET", "/sample/image", {"n": 1, "seed": 1, "format": "webp"}),
        ("GET", "/manifold/image", {"model": "mnist-2d", "n": 3}),
        ("GET", "/decode/image", {"model": "mnist-2d", "latent": [0.5, 1]}),
        ("GET", "/traverse/image", {"dims": [0], "steps": 3}),
        ("GET", "/posteriors/image", {"model": "mnist-2d", "n": 10}),
        ("POST", "/interpolate/image", {}),
        ("POST", "/interpolate/image", {"format": "gif"}),
        ("POST", "/interpolate/image", {"format": "webp"}),
    ],
)
def test_every_image_can_be_larger(client: TestClient, method: str, path: str, query: dict[str, Any]) -> None:
    body = {"json": {"points": [{"label": 3}, {"label": 4}], "steps": 3}} if method == "POST" else {}
    small, large, smooth = (
        frames(client.request(method, path, params=query | more, **body).content)
        for more in ({}, {"scale": 3}, {"scale": 3, "smooth": True})
    )
    assert np.array_equal(large, small.repeat(3, axis=1).repeat(3, axis=2))
    assert smooth.shape == large.shape
    assert not np.array_equal(smooth, large)


@pytest.mark.parametrize("scale", ["0", "33", "1.5", "x"])
def test_a_scale_has_bounds(client: TestClient, scale: str) -> None:
    assert pointers(client.get("/sample/image", params={"scale": scale})) == ["/query/scale"]
    assert pointers(client.get("/sample", params={"scale": 2})) == ["/query"]


def test_an_enlarged_image_has_no_more_pixels_than_others(client: TestClient) -> None:
    assert client.get("/sample/image", params={"scale": 32}).status_code == 200
    assert pointers(client.get("/sample/image", params={"n": 64, "scale": 32})) == ["/query/scale"]


POINTS = [{"image": base64_png(np.zeros((28, 28), np.uint8))}, {"label": 3}]


@pytest.mark.parametrize(
    ("path", "query", "body"),
    [
        ("/sample/image", {"n": 64}, None),
        ("/manifold/image", {"n": 20, "model": "mnist-2d"}, None),
        ("/traverse/image", {"dims": [0, 1, 2, 3], "steps": 16}, None),
        ("/decode/image", {}, {"latents": [[0.0] * 32] * 64}),
        ("/vary/image", {"n": 64}, {"images": [POINTS[0]["image"]]}),
        ("/interpolate/image", {"format": "webp"}, {"points": POINTS, "steps": 64}),
    ],
)
def test_a_scale_that_cannot_fit_is_refused_before_a_graph_runs(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, query: dict[str, Any], body: Any
) -> None:
    ask = partial(client.request, "GET" if body is None else "POST", path, json=body)
    assert ask(params=query | {"scale": 2}).status_code == 200
    run = AsyncMock(side_effect=AssertionError)
    monkeypatch.setattr(Graphs, "run", run)
    assert pointers(ask(params=query | {"scale": 32})) == ["/query/scale"]
    assert not run.called


def test_no_more_enlarged_images_exist_than_are_written_at_a_time(
    make_client: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    alive, most = 0, 0

    def enlarge(*arguments: Any, **options: Any) -> Pixels:
        nonlocal alive, most
        alive += 1
        most = max(most, alive)
        return images.enlarge(*arguments, **options)

    def write(*arguments: Any) -> bytes:
        nonlocal alive
        try:
            return images.write_image(*arguments)
        finally:
            alive -= 1

    monkeypatch.setattr(writers, "enlarge", enlarge)
    monkeypatch.setattr(writers, "write_image", write)
    client = make_client(slots=1)
    with ThreadPoolExecutor(16) as pool:
        sent = [
            pool.submit(client.get, "/sample/image", params={"n": 4, "scale": 8, "seed": seed}) for seed in range(32)
        ]
    assert {answer.result().status_code for answer in sent} == {200}
    assert most == 1
