"""`POST /combine`: weighted sums of latents, images and class means."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.bundle.files import read_bundle
from tests.conftest import MODELS, Pixels, base64_png, from_base64, pointers

MEANS = read_bundle(MODELS / "mnist-2d" / "2").arrays["label_means"]


def combine(client: TestClient, terms: list[dict[str, object]], query: str = "model=mnist-2d") -> dict[str, object]:
    answer = client.post(f"/combine?{query}", json={"terms": terms})
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.json()
    return body


def test_weighted_latents_add_up(client: TestClient) -> None:
    body = combine(client, [{"weight": 2, "latent": [1, 0.5]}, {"weight": -0.5, "latent": [1, -1]}])
    assert body["latents"] == [[1.5, 1.5]]
    assert body["images"] == client.post("/decode?model=mnist-2d", json={"latents": [[1.5, 1.5]]}).json()["images"]


def test_terms_are_images_class_means_and_latents(client: TestClient, digits: Pixels) -> None:
    picture = base64_png(digits[0])
    mean = np.array(client.post("/encode?model=mnist-2d", json={"images": [picture]}).json()["mean"][0])
    terms: list[dict[str, object]] = [
        {"weight": 1, "image": picture},
        {"weight": -1, "label": 7},
        {"weight": 1, "label": 3},
        {"weight": 0.5, "latent": [1, 1]},
    ]
    expected = mean - MEANS[7] + MEANS[3] + 0.5
    assert np.allclose(combine(client, terms)["latents"], [expected], atol=1e-6)


def test_swapping_a_class_changes_the_digit(client: TestClient, digits: Pixels, labels: Pixels) -> None:
    """Seven minus the mean seven plus the mean nought: nearer to noughts than to sevens, to the model's own eyes."""
    means = read_bundle(MODELS / "mnist" / "2").arrays["label_means"]
    seven = base64_png(digits[labels == 7][0])
    terms: list[dict[str, object]] = [
        {"weight": 1, "image": seven},
        {"weight": -1, "label": 7},
        {"weight": 1, "label": 0},
    ]
    (latent,) = np.array(combine(client, terms, "model=mnist&version=2")["latents"])
    assert np.linalg.norm(latent - means[0]) < np.linalg.norm(latent - means[7])


def test_as_one_picture(client: TestClient) -> None:
    terms = [{"weight": 1, "label": 3}]
    answer = client.post("/combine/image?model=mnist-2d", json={"terms": terms})
    assert answer.headers["content-type"] == "image/png"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    body = combine(client, [{"weight": 1, "label": 3}])
    assert (shown == from_base64(body["images"][0])).all()  # type: ignore[index]


def test_a_percentile_on_request(client: TestClient) -> None:
    terms: list[dict[str, object]] = [{"weight": 0, "label": 3}]
    assert "latent_percentile" not in combine(client, terms)
    assert combine(client, terms, "model=mnist-2d&percentile=true")["latent_percentile"] == [0]


@pytest.mark.parametrize(
    ("terms", "pointer"),
    [
        ([], "/terms"),
        ([{"weight": 1}], "/terms/0"),
        ([{"latent": [1, 2]}], "/terms/0/weight"),
        ([{"weight": "1", "latent": [1, 2]}], "/terms/0/weight"),
        ([{"weight": 1, "latent": [1, 2], "label": 1}], "/terms/0"),
        ([{"weight": 1, "latent": [1, 2]}, {"weight": 1, "latent": [1]}], "/terms/1/latent"),
        ([{"weight": 1, "label": 10}], "/terms/0/label"),
        ([{"weight": 1, "label": 1}, {"weight": 1, "image": "AAAA"}], "/terms/1/image"),
        ([{"weight": 1e300, "latent": [1e30, 2]}], "/terms"),
        ([{"weight": 1, "label": 1}] * 65, "/terms"),
        ([{"weight": 1, "label": 1, "more": 1}], "/terms/0"),
    ],
)
def test_what_is_wrong_is_pointed_at(client: TestClient, terms: list[dict[str, object]], pointer: str) -> None:
    assert pointers(client.post("/combine?model=mnist-2d", json={"terms": terms})) == [pointer]


def test_images_count_as_rows(make_client: Callable[..., TestClient], digits: Pixels) -> None:
    client, term = make_client(max_rows=2), {"weight": 1, "image": base64_png(digits[0])}
    assert client.post("/combine", json={"terms": [term] * 2}).status_code == 200
    assert pointers(client.post("/combine", json={"terms": [term] * 3})) == ["/terms"]
    points = [{"image": base64_png(digits[0])}] * 3
    assert pointers(client.post("/interpolate", json={"points": points})) == ["/points"]
