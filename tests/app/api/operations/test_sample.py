"""`/sample` and its representations."""

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.maths.gaussian import sample_prior
from tests.conftest import DIGITS, from_base64, load_npy, pointers


def test_every_representation_gives_the_same_pixels(client: TestClient) -> None:
    query = {"n": "5", "seed": "11", "model": "mnist-2d", "temperature": "0.8"}
    answer = client.get("/sample", params=query).json()
    assert set(answer) == {"model", "version", "images", "latents", "seed"}
    images = np.stack([from_base64(text) for text in answer["images"]])
    array = client.get("/sample/npy", params=query)
    assert np.array_equal(load_npy(array.content), images)
    picture = client.get("/sample/image", params=query | {"columns": "5"})
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture.content))), np.hstack(list(images)))
    assert array.headers["x-seed"] == picture.headers["x-seed"] == "11"
    decoded = client.post("/decode", params={"model": "mnist-2d"}, json={"latents": answer["latents"]}).json()
    assert decoded["images"] == answer["images"]


def test_latents_are_prior_draws_of_the_seed(client: TestClient) -> None:
    answer = client.get("/sample", params={"n": 3, "seed": 5, "temperature": 0.5, "truncation": 1.5}).json()
    expected = sample_prior(5, 3, (32,), temperature=0.5, truncation=1.5)
    np.testing.assert_allclose(answer["latents"], expected, rtol=DIGITS)


def test_without_a_seed_the_server_picks_one(client: TestClient) -> None:
    first, second = (client.get("/sample").json() for _ in range(2))
    assert first["seed"] != second["seed"]
    assert client.get("/sample", params={"seed": first["seed"]}).json() == first


def test_seeds_give_the_same_bytes_alone_and_under_load(client: TestClient) -> None:
    def fetch(seed: int) -> bytes:
        return client.get("/sample/image", params={"seed": seed, "n": 1 + seed % 5, "model": "mnist-2d"}).content

    alone = [fetch(seed) for seed in range(60)]
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(fetch, range(60))) == alone


def test_more_samples_go_on_from_fewer(client: TestClient) -> None:
    few, many = (client.get("/sample", params={"seed": 2, "n": n}).json() for n in (2, 6))
    assert many["images"][:2] == few["images"]


def test_the_aggregated_posterior_knows_labels(client: TestClient) -> None:
    def sample(**query: object) -> np.ndarray:
        answer = client.get("/sample/npy", params={"model": "mnist-2d", "n": 64, "seed": 0, **query})
        assert answer.status_code == 200, answer.text
        return load_npy(answer.content)

    assert not np.array_equal(sample(), sample(source="aggregate"))
    ones, zeros = (sample(source="aggregate", label=label).mean(axis=0) for label in (1, 0))
    assert ones[14, 14] > zeros[14, 14] + 50, "a one has ink in the middle, a zero has not"


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ({"n": "0"}, "/query/n"),
        ({"n": "1000000"}, "/query/n"),
        ({"n": "x"}, "/query/n"),
        ({"seed": "-1"}, "/query/seed"),
        ({"seed": str(2**31)}, "/query/seed"),
        ({"temperature": "nan"}, "/query/temperature"),
        ({"temperature": "-1"}, "/query/temperature"),
        ({"truncation": "0.05"}, "/query/truncation"),
        ({"truncation": "inf"}, "/query/truncation"),
        ({"source": "posterior"}, "/query/source"),
        ({"label": "3"}, "/query/label"),
        ({"label": "10", "source": "aggregate"}, "/query/label"),
        ({"version": "0"}, "/query/version"),
        ({"sed": "1"}, "/query"),
    ],
)
def test_what_cannot_be_drawn(client: TestClient, query: dict[str, str], pointer: str) -> None:
    assert pointers(client.get("/sample", params=query)) == [pointer]


def test_the_largest_seed_is_drawn(client: TestClient) -> None:
    assert client.get("/sample/image", params={"seed": 2**31 - 1}).headers["x-seed"] == str(2**31 - 1)


def test_a_picture_too_wide_for_its_format_is_refused(make_client: Callable[..., TestClient]) -> None:
    client = make_client(max_rows=1000)
    query = "/sample/image?n=600&columns=600&seed=1&format="
    assert pointers(client.get(query + "webp")) == ["/query/format"]
    assert client.get(query + "png").status_code == 200
