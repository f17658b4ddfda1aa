"""Latents that are maps, of images of one size: every operation answers as numpy says, or refuses with a reason."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.codecs.npy import NPY
from app.maths import gaussian
from tests.conftest import base64_png, from_base64, load_npy, load_npz, npy, pointers
from tests.maps import CELLS, LOG_STD, STRIDE, Floats, Pixels, are_near, client_of, images_of, maps, means, write_maps

HEIGHT, WIDTH = 16, 24
SHAPE = (CELLS, HEIGHT // STRIDE, WIDTH // STRIDE)
HEADERS = {"Content-Type": NPY}
FLAT = "a latent is one flat list of numbers, a map in row-major order, and latent_shape is its shape"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    models = tmp_path_factory.mktemp("models")
    write_maps(models, size=(HEIGHT, WIDTH))
    write_maps(models, "grey", size=(HEIGHT, WIDTH), channels=1, scores=True)
    write_maps(models, "plain", size=(HEIGHT, WIDTH), stochastic=False, prior=None)
    with client_of(models, default_model="maps") as client:
        yield client


@pytest.fixture(scope="module")
def pictures() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8)


def latents(count: int = 2) -> Floats:
    return np.random.default_rng(1).random((count, *SHAPE), np.float32)


def sent(images: Pixels) -> dict[str, Any]:
    return {"images": [base64_png(image) for image in images]}


def received(answer: dict[str, Any]) -> Pixels:
    return np.stack([from_base64(text) for text in answer["images"]])


def test_json_has_flat_lists_and_their_shape(client: TestClient, pictures: Pixels) -> None:
    encoded = client.post("/encode", json=sent(pictures)).json()
    assert encoded["latent_shape"] == list(SHAPE)
    assert np.shape(encoded["mean"]) == (3, np.prod(SHAPE))
    np.testing.assert_allclose(maps(encoded, "mean"), means(pictures), atol=1e-6)
    assert np.array_equal(maps(encoded, "log_std"), np.full((3, *SHAPE), LOG_STD))
    for shape in ({"latent_shape": SHAPE}, {}):
        decoded = client.post("/decode", json={"latents": encoded["mean"], **shape}).json()
        assert are_near(received(decoded), images_of(means(pictures)))
    one = client.get("/decode/image", params={"latent": encoded["mean"][0]})
    assert are_near(np.asarray(Image.open(io.BytesIO(one.content)))[None], images_of(means(pictures[:1])))


def test_arrays(client: TestClient, pictures: Pixels) -> None:
    arrays = load_npz(client.post("/encode/npy", content=npy(pictures), headers=HEADERS).content)
    np.testing.assert_allclose(arrays["mean"], means(pictures), atol=1e-6)
    images = load_npy(client.post("/decode/npy", content=npy(latents()), headers=HEADERS).content)
    assert np.array_equal(images, images_of(latents()))


def test_draws_are_seeded(client: TestClient, pictures: Pixels) -> None:
    drawn = client.post("/encode", json=sent(pictures), params={"draw": True, "seed": 3}).json()
    eps = gaussian.standard_normal(3, 3, SHAPE)
    np.testing.assert_allclose(maps(drawn), means(pictures) + np.exp(np.float32(LOG_STD)) * eps, atol=1e-6)


def test_reconstruct(client: TestClient, pictures: Pixels) -> None:
    again = client.post("/reconstruct", json=sent(pictures)).json()
    assert are_near(received(again), images_of(means(pictures)))
    query = {"mode": "predictive", "seed": 1}
    predicted = received(client.post("/reconstruct", json=sent(pictures), params=query).json())
    eps = np.stack([gaussian.generator(1, row).standard_normal((32, *SHAPE), np.float32) for row in range(3)])
    draws = means(pictures)[:, None] + np.exp(np.float32(LOG_STD)) * eps
    wanted = images_of(draws.reshape(-1, *SHAPE)).reshape(3, 32, HEIGHT, WIDTH, 3).mean(axis=1)
    assert np.abs(predicted - wanted).max() <= 1


def test_sample(client: TestClient) -> None:
    answer = client.get("/sample", params={"n": 2, "seed": 7}).json()
    np.testing.assert_allclose(maps(answer), gaussian.standard_normal(7, 2, SHAPE), rtol=1e-6)
    assert np.array_equal(received(answer), images_of(gaussian.standard_normal(7, 2, SHAPE)))
    told = client.get("/sample", params={"seed": 7, "height": HEIGHT, "width": WIDTH}).json()
    assert told["images"] == answer["images"][:1]
    assert pointers(client.get("/sample", params={"height": 8})) == ["/query/height"]


def test_interpolate_and_combine(client: TestClient, pictures: Pixels) -> None:
    points = [{"image": base64_png(pictures[0])}, {"latent": latents()[0].ravel().tolist()}]
    path = client.post("/interpolate", json={"points": points, "steps": 3}).json()
    ends = means(pictures[:1])[0], latents()[0]
    assert path["method"] == "lerp"
    np.testing.assert_allclose(maps(path), [ends[0], (ends[0] + ends[1]) / 2, ends[1]], atol=1e-5)
    terms = [{"weight": 2, **points[0]}, {"weight": -1, **points[1]}]
    total = client.post("/combine", json={"terms": terms}).json()
    np.testing.assert_allclose(maps(total)[0], 2 * ends[0] - ends[1], atol=1e-5)


def test_given_maps_are_joined_by_an_arc(client: TestClient) -> None:
    points = [{"latent": latent.ravel().tolist()} for latent in latents()]
    path = client.post("/interpolate", json={"points": points, "steps": 3}).json()
    assert path["method"] == "slerp"
    np.testing.assert_allclose(maps(path), gaussian.interpolate(latents(), 3, "slerp"), atol=1e-5)


def test_vary(client: TestClient, pictures: Pixels) -> None:
    answer = client.post("/vary", json=sent(pictures[:1]), params={"n": 4, "radius": 2, "seed": 5}).json()
    eps = gaussian.standard_normal(5, 4, SHAPE)
    np.testing.assert_allclose(maps(answer), means(pictures[:1]) + 2 * np.exp(LOG_STD) * eps, atol=1e-5)


def test_scores_are_of_all_cells_together(client: TestClient) -> None:
    images = np.random.default_rng(2).integers(0, 256, (2, HEIGHT, WIDTH), np.uint8)
    query = {"model": "grey", "k": 3, "seed": 1}
    scores = load_npz(client.post("/score/npy", content=npy(images), params=query, headers=HEADERS).content)
    posterior = gaussian.Posterior(means(images[..., None]), np.full((2, *SHAPE), LOG_STD, np.float32))
    np.testing.assert_allclose(scores["kl_per_dimension"], posterior.kl().reshape(2, -1), rtol=1e-5)
    _, drawn = posterior.draws(1, range(2), 3)
    decoded = drawn[:, :, 0].repeat(STRIDE, axis=2).repeat(STRIDE, axis=3)
    squares = np.square(images[:, None] / 255 - decoded).sum(axis=(2, 3)).mean(axis=1)
    np.testing.assert_allclose(
        scores["reconstruction"], squares / 2 + HEIGHT * WIDTH * np.log(2 * np.pi) / 2, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("given", "pointer", "detail"),
    [
        ([[0.5] * 23], "/latents/0", "this model's latents have 24 values"),
        ([[0.5] * 24, [0.5] * 25], "/latents/1", "this model's latents have 24 values"),
        ([latents(1)[0].tolist()], "/latents/0", FLAT),
        ([[0.5] * 24, latents(1)[0].tolist()], "/latents/1", FLAT),
        ([[0.5] * 23 + [[0.5]]], "/latents/0", FLAT),
        ([[[0.0]]], "/latents/0", FLAT),
        ([[[]]], "/latents/0", FLAT),
        ([[]], "/latents/0", "List should have at least 1 item after validation, not 0"),
        ([], "/latents", "List should have at least 1 item after validation, not 0"),
        ("a", "/latents", "Input should be a valid array"),
        ([[0.0, "a"]], "/latents/0/1", "Input should be a valid number"),
        ([[1e39] * 24], "/latents/0", "not finite as float32"),
    ],
)
def test_what_is_wrong_with_maps(client: TestClient, given: Any, pointer: str, detail: str) -> None:
    answer = client.post("/decode", json={"latents": given})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"pointer": pointer, "detail": detail}]


def test_what_is_wrong_with_points(client: TestClient) -> None:
    good, bad = {"latent": latents()[0].ravel().tolist()}, {"latent": [0.0]}
    assert pointers(client.post("/interpolate", json={"points": [good, bad]})) == ["/points/1/latent"]
    assert pointers(client.post("/interpolate", json={"points": [good, {"label": 3}]})) == ["/points/1/label"]
    wrong = {"points": [good, {"latent": [[[0.5]]]}, {"latent": ["a"]}]}
    assert pointers(client.post("/interpolate", json=wrong)) == ["/points/1/latent", "/points/2/latent/0"]


@pytest.mark.parametrize(
    "point", [{"image": base64_png(np.zeros((HEIGHT, WIDTH, 3), np.uint8))}, {"latent": [0.5] * 24}]
)
def test_a_shape_is_read_whatever_the_points_are(client: TestClient, point: dict[str, Any]) -> None:
    for path, body in (
        ("/interpolate", {"points": [point] * 2, "steps": 2}),
        ("/combine", {"terms": [{"weight": 1, **point}]}),
    ):
        for shape, status in ((SHAPE, 200), ([], 200), ([24], 422), ([CELLS, 3, 2], 422)):
            answer = client.post(path, json=body | {"latent_shape": shape})
            assert answer.status_code == status
            assert status == 200 or answer.json()["errors"] == [
                {"pointer": "/latent_shape", "detail": "this model's latents are [4, 2, 3]"}
            ]


def test_a_vector_model_refuses_maps(make_client: Any) -> None:
    answer = make_client().post("/decode", json={"latents": [[[[0.5, 1.0]]]]})
    assert answer.json()["errors"] == [{"pointer": "/latents/0", "detail": FLAT}]
    for shape, status in (([2], 200), ([], 200), ([1, 1, 2], 422), ([0], 422), (["2"], 422), (2, 422), (None, 422)):
        answer = make_client().post("/decode", json={"latents": [[0.5, 1.0]], "latent_shape": shape})
        assert answer.status_code == status
        assert status == 200 or pointers(answer)[0].startswith("/latent_shape")


@pytest.mark.parametrize("path", ["/manifold/image", "/traverse", "/posteriors", "/posteriors/image"])
def test_what_needs_vectors_says_so(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422
    assert "vector" in answer.json()["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("path", "pointer"),
    [("/sample", "/query/model"), ("/sample/image", "/query/model"), ("/manifold/image", "/query/model")],
)
def test_without_a_prior_nothing_is_drawn_from_it(client: TestClient, path: str, pointer: str) -> None:
    answer = client.get(path, params={"model": "plain"})
    assert pointers(answer) == [pointer]
    assert "no prior" in answer.json()["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("path", "query", "pointer"),
    [
        ("/encode", {"draw": True}, "/query/draw"),
        ("/reconstruct", {"mode": "draw"}, "/query/mode"),
        ("/reconstruct", {"mode": "predictive"}, "/query/mode"),
        ("/vary", {}, "/query/model"),
        ("/score", {}, "/query/model"),
    ],
)
def test_a_deterministic_encoder_draws_nothing(
    client: TestClient, pictures: Pixels, path: str, query: dict[str, Any], pointer: str
) -> None:
    answer = client.post(path, json=sent(pictures[:1]), params={"model": "plain", **query})
    assert pointers(answer) == [pointer]


def test_a_deterministic_encoder_does_the_rest(client: TestClient, pictures: Pixels) -> None:
    query = {"model": "plain"}
    encoded = client.post("/encode", json=sent(pictures), params=query).json()
    assert "log_std" not in encoded
    again = client.post("/reconstruct", json=sent(pictures), params=query).json()
    assert are_near(received(again), images_of(means(pictures)))
    path = {"points": [{"image": base64_png(image)} for image in pictures]}
    assert client.post("/interpolate", json=path, params=query).json()["method"] == "lerp"


def test_the_images_that_are_made_have_a_limit(client: TestClient, tmp_path: Any) -> None:
    write_maps(tmp_path, size=(HEIGHT, WIDTH))
    room = HEIGHT * WIDTH * 3
    with client_of(tmp_path, max_pixels=room) as small:
        assert small.get("/sample", params={"n": 3}).status_code == 200
        assert pointers(small.get("/sample", params={"n": 4})) == ["/query/n"]
        given = latents(4)
        assert small.post("/decode/npy", content=npy(given[:3]), headers=HEADERS).status_code == 200
        assert pointers(small.post("/decode/npy", content=npy(given), headers=HEADERS)) == [""]
        ends = [{"latent": latent.ravel().tolist()} for latent in given[:2]]
        assert small.post("/interpolate", json={"points": ends, "steps": 3}).status_code == 200
        assert pointers(small.post("/interpolate", json={"points": ends, "steps": 4})) == ["/steps"]


def test_what_costs_more_than_the_queue_holds_goes_through_in_pieces_or_is_told_that_it_never_will(
    tmp_path: Path,
) -> None:
    size = (256, 256)  # of which each counts as three rows
    write_maps(tmp_path, size=size, scores=True)
    image = np.zeros((1, *size, 3), np.uint8)
    body = sent(image)
    with client_of(tmp_path, queue_rows=30) as client:
        for query in ({"k": 25}, {"k": 25, "explain": True}):
            answer = client.post("/score", params=query, json=body)
            assert answer.status_code == 200, answer.text
        assert client.post("/reconstruct", params={"mode": "predictive"}, json=body).status_code == 200
        points = [{"latent": latent.ravel().tolist()} for latent in means(image.repeat(2, axis=0))]
        for answer in (
            client.post("/vary", params={"n": 11}, json=body),
            client.post("/interpolate", json={"points": points, "steps": 11}),
            client.get("/sample", params={"n": 11}),
        ):
            assert "needs 33 rows of the queue at once, which holds 30" in answer.text
            assert pointers(answer) == [""]
    with client_of(tmp_path, queue_rows=2) as client:
        for path in ("/encode", "/score", "/reconstruct", "/vary"):
            assert pointers(client.post(path, json=body)) == [""]
