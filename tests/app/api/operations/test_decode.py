"""`/decode` and its representations."""

import io

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.absurd import is_not_finite
from tests.conftest import from_base64, load_npy, npy, pointers

NPY = {"Content-Type": "application/x-npy"}
PLANE = {"model": "mnist-2d"}
LATENTS = [[0.0, 0.0], [1.0, -1.0], [0.5, 2.0]]


def test_every_representation_gives_the_same_pixels(client: TestClient) -> None:
    answer = client.post("/decode", params=PLANE, json={"latents": LATENTS}).json()
    assert (answer["model"], answer["version"]) == ("mnist-2d", 2)
    images = np.stack([from_base64(text) for text in answer["images"]])
    assert images.shape == (3, 28, 28)
    array = client.post("/decode/npy", params=PLANE, content=npy(np.array(LATENTS, np.float32)), headers=NPY)
    assert array.headers["content-type"] == "application/x-npy"
    assert np.array_equal(load_npy(array.content), images)
    grid = client.post("/decode/image", params=PLANE | {"columns": "3"}, json={"latents": LATENTS})
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(grid.content))), np.hstack(list(images)))
    for kind in ("png", "webp"):
        one = client.get("/decode/image", params={**PLANE, "latent": LATENTS[1], "format": kind})
        assert one.headers["content-type"] == f"image/{kind}"
        assert (one.headers["x-model"], one.headers["x-version"]) == ("mnist-2d", "2")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(one.content)).convert("L")), images[1])


def test_a_grid_is_square_unless_columns_are_given(client: TestClient) -> None:
    answer = client.post("/decode/image", params=PLANE, json={"latents": LATENTS})
    assert Image.open(io.BytesIO(answer.content)).size == (56, 56)
    one = client.post("/decode/image", params=PLANE, json={"latents": LATENTS[:1]})
    assert Image.open(io.BytesIO(one.content)).size == (28, 28)


def test_a_digit_comes_back_as_it_was(client: TestClient, digits: np.ndarray) -> None:
    means = client.post("/encode/npy", content=npy(digits[:50]), headers=NPY)
    latents = np.load(io.BytesIO(means.content))["mean"]
    back = load_npy(client.post("/decode/npy", content=npy(latents), headers=NPY).content)
    error = np.abs(back.astype(float) - digits[:50]).mean()
    assert error < 15, "the mean grey difference of a reconstruction"
    assert np.abs(back[::-1].astype(float) - digits[:50]).mean() > 2 * error


@pytest.mark.parametrize(
    ("latents", "pointer"),
    [
        ([], "/latents"),
        ([[]], "/latents/0"),
        ([[0.0]], "/latents/0"),
        ([[0.0, 0.0], [0.0, 0.0, 0.0]], "/latents/1"),
        ([[0.0, "1"]], "/latents/0/1"),
        ([[0.0, True]], "/latents/0/1"),
        ([[0.0, None]], "/latents/0/1"),
        ([[0.0, 1e300]], "/latents/0"),
        ([[0.0, 0.0]] * 257, "/latents"),
    ],
)
def test_what_are_no_latents(client: TestClient, latents: list[object], pointer: str) -> None:
    assert pointers(client.post("/decode", params=PLANE, json={"latents": latents})) == [pointer]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite(client: TestClient, number: str) -> None:
    body = f'{{"latents": [[0.0, {number}]]}}'
    answer = client.post("/decode", params=PLANE, content=body, headers={"Content-Type": "application/json"})
    assert pointers(answer) == ["/latents/0/1"]
    assert pointers(client.get("/decode/image", params={**PLANE, "latent": ["0", number]})) == ["/query/latent/1"]


@pytest.mark.parametrize(
    ("array", "pointer"),
    [
        (np.zeros((2, 3)), ""),
        (np.zeros(2), ""),
        (np.zeros((2, 2), np.uint8), ""),
        (np.zeros((0, 2)), ""),
        (np.array([[0, 0], [0, np.nan]]), "/1"),
        (np.array([[0, 1e300]]), "/0"),
    ],
)
def test_arrays_that_are_no_latents(client: TestClient, array: np.ndarray, pointer: str) -> None:
    assert pointers(client.post("/decode/npy", params=PLANE, content=npy(array), headers=NPY)) == [pointer]


@pytest.mark.parametrize(
    "query", [{}, {"latent": ["1"]}, {"latent": ["1", "x"]}, {"latent": ["1", "2"], "format": "gif"}]
)
def test_links_that_decode_nothing(client: TestClient, query: dict[str, object]) -> None:
    assert client.get("/decode/image", params={**PLANE, **query}).status_code == 422


@pytest.mark.parametrize("value", [3.4e38, -3.4e38])
def test_an_absurd_latent_that_overflows_in_the_model_is_told_so(client: TestClient, value: float) -> None:
    answer = client.post("/decode", json={"latents": [[value] * 32]})
    assert answer.status_code == 500
    assert is_not_finite(answer.content)
    assert not is_not_finite(client.post("/decode", json={"latents": [[4e38] * 32]}).content)
    assert not is_not_finite(client.post("/decode", json={"latents": [[0.0] * 32]}).content)
    assert not is_not_finite(b"")
