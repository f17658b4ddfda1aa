"""Images beyond the tile side go through in tiles: the answers are those of the whole."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.codecs.npy import NPY
from tests.conftest import from_base64, load_npy, load_npz, npy
from tests.maps import CELLS, Floats, Pixels, are_near, client_of, images_of, means, write_maps

HEADERS = {"Content-Type": NPY}
BLUR = 9
"""Side of the decoder's blur: a tile's edge is seen through half of it, which is less than what is left out."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write_maps(models)
    write_maps(models, "smooth", smooth=BLUR)
    write_maps(models, "fixed", size=(128, 136))
    return models


@pytest.fixture(scope="module")
def client(models: Path) -> Iterator[TestClient]:
    with client_of(models, default_model="maps", tile_side=64) as client:
        yield client


@pytest.fixture(scope="module")
def whole(models: Path) -> Iterator[TestClient]:
    with client_of(models, default_model="maps", tile_side=4096) as client:
        yield client


def noise(height: int, width: int, count: int = 1) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def latents(height: int, width: int, count: int = 1) -> Floats:
    return np.random.default_rng(1).random((count, CELLS, height, width), np.float32)


def posted(client: TestClient, path: str, array: Any, **query: Any) -> bytes:
    answer = client.post(path, content=npy(array), headers=HEADERS, params=query)
    assert answer.status_code == 200, answer.text
    return bytes(answer.content)


def metric(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(name)).split()[1])


def batch_rows(client: TestClient) -> float:
    return metric(client, "vae_batch_rows_total")


def batches(client: TestClient) -> float:
    return metric(client, "vae_batches_total")


@pytest.mark.parametrize(("height", "width"), [(200, 72), (64, 320), (136, 208)])
def test_what_looks_at_single_cells_is_the_same(client: TestClient, height: int, width: int) -> None:
    images = noise(height, width, 2)
    arrays = load_npz(posted(client, "/encode/npy", images))
    np.testing.assert_allclose(arrays["mean"], means(images), atol=1e-5)
    assert are_near(load_npy(posted(client, "/decode/npy", arrays["mean"])), images_of(means(images)))
    assert are_near(load_npy(posted(client, "/reconstruct/npy", images)), images_of(means(images)))


def test_no_seam_is_seen(models: Path, whole: TestClient) -> None:
    given = latents(33, 52)
    with client_of(models, default_model="smooth", tile_side=128) as client:
        tiled = load_npy(posted(client, "/decode/npy", given))
    assert are_near(tiled, load_npy(posted(whole, "/decode/npy", given, model="smooth")))


def test_each_tile_is_a_row(client: TestClient, whole: TestClient) -> None:
    images = noise(64, 160)  # tiles of 8 cells, steps of 6: 20 cells take 3
    before = batch_rows(client), batch_rows(whole)
    posted(client, "/encode/npy", images)
    posted(whole, "/encode/npy", images)
    assert (batch_rows(client) - before[0], batch_rows(whole) - before[1]) == (3, 1)


@pytest.mark.parametrize(
    ("levels", "whole_bytes", "rows"),
    [(2, 10**9, 2), (2, 72 * 136 * 1000, 2), (2, 72 * 136 * 1000 - 1, 12), (2, 1, 12), (1, 10**9, 12)],
)
def test_images_that_tiles_would_change_run_in_one_piece_within_the_bound_of_memory(
    tmp_path: Path, levels: int, whole_bytes: int, rows: int
) -> None:
    write_maps(tmp_path, smooth=BLUR, told={"tiles": {"levels": levels, "bytes_per_pixel": 1000}})
    given = latents(9, 17)
    with client_of(tmp_path, default_model="maps", tile_side=4096) as client:
        expected = load_npy(posted(client, "/decode/npy", given))
    with client_of(tmp_path, default_model="maps", tile_side=64, whole_bytes=whole_bytes) as client:
        before = batch_rows(client)
        decoded = load_npy(posted(client, "/decode/npy", given))
        posted(client, "/encode/npy", noise(72, 136))
        assert batch_rows(client) - before == rows  # a tile each, or an image
        if rows == 2:
            assert np.array_equal(decoded, expected)


def test_larger_images_in_one_piece_run_alone(tmp_path: Path) -> None:
    write_maps(tmp_path, told={"tiles": {"levels": 2, "bytes_per_pixel": 1}})
    for tile_side, count in ((512, 1), (504, 4)):
        with client_of(tmp_path, default_model="maps", tile_side=tile_side, batch_seconds=60, slots=1) as client:
            before = batches(client)
            posted(client, "/encode/npy", noise(512, 512, 4))
            assert batches(client) - before == count


def test_images_of_one_size_are_never_cut(client: TestClient) -> None:
    images = noise(128, 136)
    before = batch_rows(client)
    np.testing.assert_allclose(
        load_npz(posted(client, "/encode/npy", images, model="fixed"))["mean"], means(images), atol=1e-5
    )
    assert batch_rows(client) - before == 1


def test_draws_are_of_the_whole(client: TestClient, whole: TestClient) -> None:
    query = {"mode": "predictive", "seed": 3}
    images = noise(72, 80, 2)
    tiled, at_once = (load_npy(posted(it, "/reconstruct/npy", images, **query)) for it in (client, whole))
    assert are_near(tiled, at_once)
    size = {"height": 80, "width": 136, "seed": 3}
    pictures = [from_base64(it.get("/sample", params=size).json()["images"][0]) for it in (client, whole)]
    assert are_near(*pictures)


def test_the_open_inference_protocol_cuts_too(client: TestClient) -> None:
    given = latents(10, 12)
    tensor = {"name": "latent", "shape": given.shape, "datatype": "FP32", "data": given.ravel().tolist()}
    answer = client.post("/v2/models/maps.decoder/infer", json={"inputs": [tensor]}).json()
    (output,) = answer["outputs"]
    image = np.array(output["data"], np.uint8).reshape(output["shape"]).transpose(0, 2, 3, 1)
    assert are_near(image, images_of(given))


def test_more_tiles_than_the_queue_has_rows_take_turns(models: Path) -> None:
    with client_of(models, default_model="maps", tile_side=64, queue_rows=1100, max_pixels=2**22) as client:
        images = noise(8, 8 * 12_000)
        np.testing.assert_allclose(load_npz(posted(client, "/encode/npy", images))["mean"], means(images), atol=1e-5)
