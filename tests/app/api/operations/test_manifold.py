"""`/manifold/image`."""

import io

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.maths.gaussian import manifold_grid
from tests.conftest import from_base64, pointers


def test_the_manifold_is_the_decoded_grid(client: TestClient) -> None:
    answer = client.get("/manifold/image", params={"model": "mnist-2d", "n": 4})
    assert answer.headers["x-model"] == "mnist-2d"
    grid = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert grid.shape == (4 * 28, 4 * 28)
    latents = manifold_grid(4).tolist()
    images = client.post("/decode", params={"model": "mnist-2d"}, json={"latents": latents}).json()["images"]
    assert np.array_equal(grid[:28, :28], from_base64(images[0])), "smallest first, largest second dimension"
    assert np.array_equal(grid[-28:, -28:], from_base64(images[-1]))


def test_it_is_20_by_20_by_default(client: TestClient) -> None:
    answer = client.get("/manifold/image", params={"model": "mnist-2d", "format": "webp"})
    assert answer.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(answer.content)).size == (560, 560)


def test_two_dimensions_of_many(client: TestClient) -> None:
    default = client.get("/manifold/image", params={"n": 3})
    model = client.get("/models/mnist").json()
    kl = model["manifest"]["metrics"]["kl_per_dimension"]
    dims = sorted(np.argsort(kl)[-2:].tolist())
    assert client.get("/manifold/image", params={"n": 3, "dims": dims}).content == default.content
    assert client.get("/manifold/image", params={"n": 3, "dims": dims[::-1]}).content != default.content


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"n": 0}, "/query/n"),
        ({"n": 33}, "/query/n"),
        ({"dims": [1]}, "/query/dims"),
        ({"dims": [1, 1]}, "/query/dims"),
        ({"dims": [0, 32]}, "/query/dims"),
        ({"dims": [-1, 0]}, "/query/dims/0"),
    ],
)
def test_what_is_no_plane(client: TestClient, query: dict[str, object], pointer: str) -> None:
    assert pointers(client.get("/manifold/image", params=query)) == [pointer]
