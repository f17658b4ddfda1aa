"""`GET /traverse`: rows of one dimension each, or along a stored direction."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.bundle.files import read_bundle
from tests.conftest import DIGITS, MODELS, from_base64, pointers


def test_one_dimension_of_a_row_takes_even_values(client: TestClient) -> None:
    answer = client.get("/traverse?model=mnist-2d&steps=5&extent=2")
    assert answer.status_code == 200
    body = answer.json()
    assert body["values"] == [-2, -1, 0, 1, 2]
    rows = np.array(body["latents"]).reshape(len(body["dims"]), 5, 2)
    for dim, row in zip(body["dims"], rows, strict=True):
        assert row[:, dim].tolist() == body["values"]
        assert (np.delete(row, dim, axis=1) == 0).all()
    assert not {"seed", "label", "direction"} & set(body)


def test_pictures_are_those_of_the_latents(client: TestClient) -> None:
    body = client.get("/traverse?dims=3&dims=7&steps=3").json()
    again = client.post("/decode", json={"latents": body["latents"]}).json()
    assert body["images"] == again["images"]
    assert len(body["images"]) == 6


def test_without_dims_those_of_highest_kl_are_shown(client: TestClient) -> None:
    kl = client.get("/models/mnist").json()["manifest"]["metrics"]["kl_per_dimension"]
    body = client.get("/traverse?steps=2").json()
    assert body["dims"] == sorted(range(len(kl)), key=lambda dim: -kl[dim])[:10]


def test_it_starts_from_a_draw_or_from_a_class_mean(client: TestClient) -> None:
    drawn = client.get("/sample?seed=5").json()["latents"][0]
    body = client.get("/traverse?dims=0&steps=2&seed=5").json()
    assert [latent[1:] for latent in body["latents"]] == [drawn[1:], drawn[1:]]
    assert body["seed"] == 5
    mean = read_bundle(MODELS / "mnist" / "2").arrays["label_means"][4]
    body = client.get("/traverse?dims=0&steps=2&label=4&version=2").json()
    np.testing.assert_allclose(body["latents"][0][1:], mean[1:], rtol=DIGITS)
    assert body["label"] == 4


def test_a_stored_direction_is_followed_by_its_standard_deviations(client: TestClient) -> None:
    axis = read_bundle(MODELS / "mnist" / "2").arrays["directions"][1]
    body = client.get("/traverse?direction=1&steps=3&extent=2&version=2").json()
    assert np.allclose(body["latents"], [-2 * axis, 0 * axis, 2 * axis])
    assert body["direction"] == 1
    assert "dims" not in body


def test_a_grid_has_a_row_a_dimension(client: TestClient) -> None:
    image = Image.open(io.BytesIO(client.get("/traverse/image?dims=0&dims=1&dims=2&steps=7").content))
    assert image.size == (7 * 28, 3 * 28)
    body = client.get("/traverse?dims=0&dims=1&dims=2&steps=7").json()
    assert (np.asarray(image)[28:56, 28:56] == from_base64(body["images"][8])).all()
    narrow = client.get("/traverse/image?dims=0&steps=4&columns=2&format=webp")
    assert Image.open(io.BytesIO(narrow.content)).size == (56, 56)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("dims=32", "/query/dims"),
        ("dims=-1", "/query/dims/0"),
        ("steps=1", "/query/steps"),
        ("steps=65", "/query/steps"),
        ("extent=0", "/query/extent"),
        ("extent=nan", "/query/extent"),
        ("direction=32", "/query/direction"),
        ("direction=0&dims=1", "/query/direction"),
        ("seed=1&label=1", "/query/label"),
        ("label=10", "/query/label"),
        ("&".join(["dims=0"] * 30) + "&steps=64", "/query/dims"),
    ],
)
def test_what_is_wrong_is_pointed_at(client: TestClient, query: str, pointer: str) -> None:
    assert pointers(client.get(f"/traverse?{query}")) == [pointer]


def test_without_a_seed_it_may_be_kept(client: TestClient) -> None:
    answer = client.get("/traverse/image?model=mnist-2d&version=2")
    assert "immutable" in answer.headers["cache-control"]
    assert client.get("/traverse/image?model=mnist-2d&version=2&seed=1").headers["x-seed"] == "1"


def test_as_many_dims_are_shown_as_the_limits_allow(client: TestClient, make_client: Callable[..., TestClient]) -> None:
    body = client.get("/traverse?steps=64").json()
    assert len(body["dims"]) == 4
    few = make_client(max_rows=4)
    assert pointers(few.get("/traverse?steps=5")) == ["/query/steps"]
    assert pointers(few.get("/traverse?direction=0&steps=5")) == ["/query/steps"]
    assert few.get("/traverse?direction=0&steps=4").status_code == 200
