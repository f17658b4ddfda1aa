"""Images of any size: each keeps its own, by the model's stride; all of a request have the same."""

import asyncio
import io
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.bundle.files import read_bundle
from app.codecs.npy import NPY
from app.errors import Overloaded
from app.inference.admission import Reservation
from app.inference.batcher import Batcher
from app.inference.graphs import ServingOptions
from app.maths import gaussian
from app.vae.vae import Vae
from tests.conftest import base64_png, from_base64, load_npy, load_npz, npy, png, pointers
from tests.maps import CELLS, Floats, Pixels, are_near, client_of, images_of, maps, means, write_maps

HEADERS = {"Content-Type": NPY}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    models = tmp_path_factory.mktemp("models")
    write_maps(models, told={"scaling_factor": 0.5, "shift_factor": 0.1})
    write_maps(models, "grey", channels=1)
    write_maps(models, "plain", stochastic=False, prior=None)
    with client_of(models, default_model="maps", max_pixels=2**20) as client:
        yield client


def noise(height: int, width: int, count: int = 1, channels: int = 3) -> Pixels:
    return np.random.default_rng(height * width).integers(0, 256, (count, height, width, channels), np.uint8)


def smooth(height: int, width: int) -> Pixels:
    """`[H, W, 3]`: so that a resize changes little."""
    down, across = np.meshgrid(np.linspace(20, 220, height), np.linspace(0, 30, width), indexing="ij")
    return np.stack([down, down + across, 255 - down], axis=2).astype(np.uint8)


def latents(height: int, width: int, count: int = 1) -> Floats:
    return np.random.default_rng(height + width).random((count, CELLS, height, width), np.float32)


def encoded(client: TestClient, *images: Pixels, **query: Any) -> Any:
    return client.post("/encode", json={"images": [base64_png(image) for image in images]}, params=query)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (16, 40), (64, 24)])
def test_a_picture_keeps_its_size(client: TestClient, height: int, width: int) -> None:
    images = noise(height, width, 2)
    answer = encoded(client, *images).json()
    np.testing.assert_allclose(maps(answer, "mean"), means(images), atol=1e-6)
    body = {"latents": answer["mean"], "latent_shape": answer["latent_shape"]}
    decoded = client.post("/decode", json=body).json()["images"]
    assert are_near(np.stack([from_base64(text) for text in decoded]), images_of(means(images)))


def test_files_and_arrays_keep_their_size(client: TestClient) -> None:
    images = noise(16, 24, 2)
    files = [("images", ("x.png", png(image))) for image in images]
    np.testing.assert_allclose(maps(client.post("/encode/files", files=files).json(), "mean"), means(images), atol=1e-6)
    arrays = load_npz(client.post("/encode/npy", content=npy(images), headers=HEADERS).content)
    np.testing.assert_allclose(arrays["mean"], means(images), atol=1e-6)
    again = load_npy(client.post("/reconstruct/npy", content=npy(images), headers=HEADERS).content)
    assert are_near(again, images_of(means(images)))


def test_grey_arrays_need_no_channel(client: TestClient) -> None:
    images = noise(16, 24, 2, channels=1)
    for array in (images, images[..., 0]):
        answer = client.post("/encode/npy", content=npy(array), headers=HEADERS, params={"model": "grey"})
        np.testing.assert_allclose(load_npz(answer.content)["mean"], means(images), atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(19, 45), (23, 40), (16, 41)])
def test_a_size_is_rounded_down_by_a_resize(client: TestClient, height: int, width: int) -> None:
    wanted = means(smooth(16, 40)[None])
    mean = maps(encoded(client, smooth(height, width)).json(), "mean")
    assert mean.shape == wanted.shape
    assert np.abs(mean - wanted).max() < 0.02


def test_or_by_a_crop(client: TestClient) -> None:
    picture = noise(19, 45)[0]
    mean = maps(encoded(client, picture, fit="crop").json(), "mean")
    np.testing.assert_allclose(mean, means(picture[None, 1:17, 2:42]), atol=1e-6)


@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_one_cell_is_the_least(client: TestClient, fit: str) -> None:
    mean = maps(encoded(client, smooth(3, 20), fit=fit).json(), "mean")
    assert mean.shape == (1, CELLS, 1, 2)


def test_strict_takes_multiples_alone(client: TestClient) -> None:
    assert encoded(client, noise(16, 24)[0], strict=True).status_code == 200
    answer = encoded(client, noise(16, 24)[0], noise(16, 25)[0], strict=True)
    assert pointers(answer) == ["/images/1"]
    assert "multiples of 8" in answer.json()["errors"][0]["detail"]
    assert pointers(encoded(client, noise(16, 24)[0, ..., 0], strict=True)) == ["/images/0"]


def test_the_pictures_of_a_request_are_of_one_size(client: TestClient) -> None:
    same, other = noise(16, 24)[0], noise(24, 16)[0]
    assert encoded(client, same, noise(17, 26)[0]).status_code == 200
    assert pointers(encoded(client, same, same, other, other)) == ["/images/2"]
    files = [("images", ("x.png", png(image))) for image in (same, other)]
    assert pointers(client.post("/encode/files", files=files)) == ["/images/1"]


def test_orientation_is_applied_before_the_size_is_looked_at(client: TestClient) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(noise(16, 40)[0]).save(buffer, "PNG", exif=exif)
    answer = client.post("/encode/files", files={"images": ("x.png", buffer.getvalue())})
    assert maps(answer.json(), "mean").shape == (1, CELLS, 5, 2)


@pytest.mark.parametrize("shape", [(1, 16, 20, 3), (1, 20, 16, 3), (1, 16, 16), (1, 16, 16, 1), (1, 0, 16, 3), (2, 8)])
def test_arrays_must_be_multiples(client: TestClient, shape: tuple[int, ...]) -> None:
    answer = client.post("/encode/npy", content=npy(np.zeros(shape, np.uint8)), headers=HEADERS)
    assert answer.json()["errors"] == [{"pointer": "", "detail": "images must be [N, H, W, 3], H and W multiples of 8"}]


@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (1, 4, 2), (1, 4), (1, 4, 0, 2), (1, 4, 2, 2, 1)])
def test_arrays_of_latents_must_be_maps(client: TestClient, shape: tuple[int, ...]) -> None:
    answer = client.post("/decode/npy", content=npy(np.zeros(shape, np.float32)), headers=HEADERS)
    assert answer.json()["errors"] == [{"pointer": "", "detail": "latents must be [N, 4, h, w]"}]


def test_the_latents_of_a_request_are_of_one_size(client: TestClient) -> None:
    given = [latents(2, 3)[0].ravel().tolist(), latents(3, 3)[0].ravel().tolist()]
    shape = {"latent_shape": [CELLS, 2, 3]}
    answer = client.post("/decode", json={"latents": given, **shape})
    assert answer.json()["errors"] == [
        {"pointer": "/latents/1", "detail": "has another number of values than latent_shape"}
    ]
    points = [{"latent": it} for it in given]
    assert pointers(client.post("/interpolate", json={"points": points, **shape})) == ["/points/1/latent"]
    terms = [{"weight": 1, "image": base64_png(noise(16, 16)[0])}, {"weight": 1, "latent": given[0]}]
    assert pointers(client.post("/combine", json={"terms": terms, **shape})) == ["/terms/1"]
    points = [{"image": base64_png(noise(16, width)[0])} for width in (16, 16, 24)]
    assert pointers(client.post("/interpolate", json={"points": points})) == ["/points/2/image"]


@pytest.mark.parametrize("shape", [None, [], [24], [CELLS + 1, 2, 3], [CELLS, 6], [CELLS, 2, 3, 1]])
def test_a_request_says_the_shape_of_its_latents(client: TestClient, shape: list[int] | None) -> None:
    asked = {} if shape is None else {"latent_shape": shape}
    latent = latents(2, 3)[0].ravel().tolist()
    for path, body in (
        ("/decode", {"latents": [latent]}),
        ("/interpolate", {"points": [{"latent": latent}] * 2}),
        ("/combine", {"terms": [{"weight": 1, "latent": latent}]}),
    ):
        answer = client.post(path, json=body | asked)
        assert pointers(answer) == ["/latent_shape"]
        assert (shape is not None and len(shape) > 3) or "[4, h, w]" in answer.json()["errors"][0]["detail"]
    query = {"latent": latent, **asked}
    assert pointers(client.get("/decode/image", params=query)) == ["/query/latent_shape"]
    answer = client.get("/decode/image", params=query | {"latent_shape": [CELLS, 2, 3]})
    assert are_near(np.asarray(Image.open(io.BytesIO(answer.content)))[None], images_of(latents(2, 3)))


def test_paths_sums_and_neighbours(client: TestClient) -> None:
    picture, latent = noise(16, 24)[0], latents(2, 3)
    points = [{"image": base64_png(picture)}, {"latent": latent[0].ravel().tolist()}]
    shape = {"latent_shape": [CELLS, 2, 3]}
    path = client.post("/interpolate", json={"points": points, "steps": 3, **shape}).json()
    np.testing.assert_allclose(maps(path)[1], (means(picture[None])[0] + latent[0]) / 2, atol=1e-5)
    total = client.post("/combine", json={"terms": [{"weight": 0.5, **point} for point in points], **shape}).json()
    np.testing.assert_allclose(total["latents"][0], path["latents"][1], atol=1e-5)
    near = client.post("/vary", json={"images": [base64_png(picture)]}, params={"n": 2, "radius": 0}).json()
    np.testing.assert_allclose(maps(near), means(picture[None]).repeat(2, axis=0), atol=1e-6)


def test_sample_says_how_large(client: TestClient) -> None:
    query = {"n": 2, "seed": 3, "height": 16, "width": 40}
    answer = client.get("/sample", params=query).json()
    np.testing.assert_allclose(maps(answer), gaussian.standard_normal(3, 2, (CELLS, 2, 5)), rtol=1e-6)
    assert from_base64(answer["images"][0]).shape == (16, 40, 3)
    assert load_npy(client.get("/sample/npy", params=query).content).shape == (2, 16, 40, 3)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({}, "/query/height"),
        ({"height": 16}, "/query/width"),
        ({"height": 16, "width": 20}, "/query/width"),
        ({"height": 0, "width": 16}, "/query/height"),
        ({"height": 1024, "width": 1032}, "/query/n"),
        ({"height": 8, "width": 2**60}, "/query/n"),
        ({"height": 16, "width": 16, "model": "plain"}, "/query/model"),
    ],
)
def test_what_is_wrong_with_a_size(client: TestClient, query: dict[str, Any], pointer: str) -> None:
    assert pointers(client.get("/sample", params=query)) == [pointer]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/manifold/image"),
        ("GET", "/traverse"),
        ("GET", "/posteriors"),
        ("POST", "/score"),
        ("GET", "/decode/image?latent=1&latent=2"),
        ("GET", "/sample?source=aggregate&height=8&width=8"),
    ],
)
def test_what_does_not_go_says_why(client: TestClient, method: str, path: str) -> None:
    body = {"json": {"images": [base64_png(noise(16, 16)[0])]}} if method == "POST" else {}
    answer = client.request(method, path, **body)
    assert len(pointers(answer)) == 1
    assert answer.json()["errors"][0]["detail"].startswith("this model")


@pytest.mark.parametrize(("height", "width"), [(1024, 1032), (1, 300_000)])
def test_pictures_are_counted_in_pixels(client: TestClient, height: int, width: int) -> None:
    content = png(np.zeros((height, width), np.uint8))
    assert pointers(client.post("/encode/files", files={"images": ("x.png", content)})) == ["/images/0"]


def test_the_open_inference_protocol(client: TestClient) -> None:
    told = client.get("/v2/models/maps.encoder").json()
    assert told["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 3, -1, -1]}]
    assert told["outputs"][0] == {"name": "mean", "datatype": "FP32", "shape": [-1, CELLS, -1, -1]}
    config = client.get("/v2/models/maps.decoder/config").json()
    assert config["input"][0]["dims"] == [CELLS, -1, -1]
    images = noise(16, 24, 2)
    planes = images.transpose(0, 3, 1, 2)
    tensor = {"name": "image", "shape": planes.shape, "datatype": "UINT8", "data": planes.ravel().tolist()}
    answer = client.post("/v2/models/maps.encoder/infer", json={"inputs": [tensor]}).json()
    assert answer["outputs"][0]["shape"] == [2, CELLS, 2, 3]
    np.testing.assert_allclose(answer["outputs"][0]["data"], means(images).ravel(), atol=1e-6)
    latent = {"name": "latent", "shape": [2, CELLS, 2, 3], "datatype": "FP32", "data": means(images).tolist()}
    answer = client.post("/v2/models/maps.decoder/infer", json={"inputs": [latent]}).json()
    assert answer["outputs"][0]["shape"] == [2, 3, 16, 24]
    wrong = [("image", [2, 3, 16, 20], "encoder"), ("latent", [2, 3, 2, 2], "decoder"), ("image", [3], "encoder")]
    for name, shape, kind in [*wrong, ("latent", [2, CELLS, 2000, 2000], "decoder")]:
        tensor = {"name": name, "shape": shape, "datatype": "FP32", "data": []}
        answer = client.post(f"/v2/models/maps.{kind}/infer", json={"inputs": [tensor]})
        assert pointers(answer) == ["/inputs/0/shape"]
    raw = client.post(
        "/v2/models/maps.encoder/infer", content=planes.tobytes(), headers={"Inference-Header-Content-Length": "0"}
    )
    assert raw.status_code == 422
    assert "does not say which" in raw.json()["error"]


def test_the_protocol_of_diffusers(client: TestClient) -> None:
    images = noise(16, 24, 1)
    query: dict[str, Any] = {"do_scaling": True}
    answer = client.post("/remote/encode", params=query, content=png(images[0]))
    wire = np.frombuffer(answer.content, "<f4").reshape(1, CELLS, 2, 3)
    np.testing.assert_allclose(wire, (means(images) - 0.1) * 0.5, atol=1e-6)
    query |= {"shape": wire.shape, "dtype": "float32", "image_format": "png"}
    answer = client.post(
        "/remote/decode", params=query, content=wire.tobytes(), headers={"Content-Type": "tensor/binary"}
    )
    assert are_near(np.asarray(Image.open(io.BytesIO(answer.content)))[None], images_of(means(images)))
    shape = {"shape": [1, 3, 16, 20], "dtype": "uint8"}
    assert pointers(client.post("/remote/encode", params=shape, content=bytes(960))) == ["/query/shape"]


def test_json_holds_so_many_numbers(tmp_path: Path) -> None:
    write_maps(tmp_path)
    picture = {"images": ("x.png", png(np.zeros((2304, 4096, 3), np.uint8)))}
    given = {"name": "latent", "shape": [1, CELLS, 148, 148], "datatype": "FP32", "data": [0] * CELLS * 148 * 148}
    with client_of(tmp_path) as client:
        answer = client.post("/encode/files", files=picture)
        assert pointers(answer) == [""]
        assert "ask for fewer, or for npy" in answer.json()["errors"][0]["detail"]
        request: dict[str, Any] = {"inputs": [given]}
        assert pointers(client.post("/v2/models/maps.decoder/infer", json=request)) == ["/outputs"]
        request["parameters"] = {"binary_data_output": True}
        assert len(client.post("/v2/models/maps.decoder/infer", json=request).content) > 3 * 1184 * 1184


def test_what_a_picture_becomes_is_counted_too(tmp_path: Path) -> None:
    write_maps(tmp_path, size=(64, 64))
    files = [("images", ("x.png", png(np.zeros((2, 2, 3), np.uint8))))] * 3
    with client_of(tmp_path, max_pixels=2 * 64 * 64) as client:
        assert client.post("/encode/files", files=files[:2]).status_code == 200
        assert pointers(client.post("/encode/files", files=files)) == ["/images/2"]


@pytest.mark.parametrize(("format", "steps"), [("webp", 2), ("png", 5)])
def test_a_path_must_fit_into_its_format(client: TestClient, format: str, steps: int) -> None:
    points = [{"latent": latent.ravel().tolist()} for latent in latents(1, 2060, 2)]
    body = {"points": points, "latent_shape": [CELLS, 1, 2060]}
    answer = client.post("/interpolate/image", json={**body, "steps": steps}, params={"format": format})
    assert pointers(answer) == ["/query/format"]
    assert client.post("/interpolate/image", json={**body, "steps": 2}).status_code == 200


def test_who_sends_each_picture_in_another_size_is_refused_as_others_are(tmp_path: Path) -> None:
    bundle = read_bundle(write_maps(tmp_path))

    async def statuses() -> list[int]:
        batcher = Batcher(slots=1, wait_seconds=1e-9)
        vae = Vae(bundle, batcher)
        encoding = [vae.encode(noise(16, 8 * width)) for width in range(1, 5)]
        answers = await asyncio.gather(*encoding, return_exceptions=True)
        await batcher.close()
        return [getattr(answer, "status", 200) for answer in answers]

    assert asyncio.run(statuses()) == [200, 503, 503, 503]


def test_room_for_all_that_a_request_needs_of_pictures_of_any_size_is_held_before_anything_runs(tmp_path: Path) -> None:
    bundle = read_bundle(write_maps(tmp_path))

    async def main() -> None:
        batcher = Batcher(slots=1, queue_rows=8)
        vae = Vae(bundle, batcher, ServingOptions(tile_side=64))
        others_lane = batcher.lane("others", lambda _: {})

        def hold(rows: int) -> AbstractContextManager[Reservation]:
            return batcher.admission.reserve(others_lane, rows)

        small, tiled = noise(64, 64, 5), noise(64 * 3, 64 * 6)  # of 4 rows of 8 tiles
        for images, others in ((small, 4), (tiled, 1)):
            with hold(others), pytest.raises(Overloaded):
                await vae.reconstruct(images, "mean", 0)
        assert batcher.rows == 0
        with hold(7), pytest.raises(Overloaded):
            await vae.encode(tiled)
        assert batcher.rows == 0
        for work in (vae.encode(tiled), vae.decode(means(tiled))):
            task = asyncio.create_task(work)
            while not batcher.rows:  # noqa: ASYNC110 (a slot is waited for)
                await asyncio.sleep(0)
            with hold(8 - batcher.queue.rows):  # who was let in is not refused midway
                await task
            batcher.rows = 0
        await batcher.close()

    asyncio.run(main())
