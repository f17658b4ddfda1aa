"""`/interpolate` and its representations."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.errors import NotFinite
from tests.conftest import Pixels, base64_png, from_base64, pointers

PLANE = {"model": "mnist-2d"}
LINE = [{"latent": [0.0, -1.0]}, {"latent": [0.0, 1.0]}]


def test_a_path_visits_its_points_evenly(client: TestClient) -> None:
    answer = client.post("/interpolate", params=PLANE, json={"points": LINE, "steps": 5}).json()
    assert set(answer) == {"model", "version", "images", "latents", "method"}
    assert answer["latents"] == [[0.0, -1.0], [0.0, -0.5], [0.0, 0.0], [0.0, 0.5], [0.0, 1.0]]
    assert len(answer["images"]) == 5
    assert answer["method"] == "lerp"


def test_a_path_runs_through_several_points(client: TestClient) -> None:
    body = {"points": [*LINE, *LINE], "steps": 4}
    answer = client.post("/interpolate", params=PLANE, json=body).json()
    assert len(answer["images"]) == (4 - 1) * (4 - 1) + 1


def test_from_one_digit_to_another(client: TestClient, digits: Pixels) -> None:
    body = {"points": [{"image": base64_png(digits[0])}, {"image": base64_png(digits[1])}], "steps": 3}
    answer = client.post("/interpolate", json=body).json()
    means = client.post("/encode", json={"images": [point["image"] for point in body["points"]]}).json()["mean"]
    assert answer["latents"][0] == pytest.approx(means[0])
    assert answer["latents"][2] == pytest.approx(means[1])
    assert answer["latents"][1] == pytest.approx(((np.array(means[0]) + means[1]) / 2).tolist(), abs=1e-5)


def test_labels_are_class_means(client: TestClient) -> None:
    body = {"points": [{"label": 0}, {"latent": [0.0, 0.0]}, {"label": 1}], "steps": 2}
    answer = client.post("/interpolate", params=PLANE, json=body).json()
    assert len(answer["latents"]) == 3
    assert answer["latents"][1] == [0.0, 0.0]
    zero, one = from_base64(answer["images"][0]), from_base64(answer["images"][2])
    assert int(one[14, 14]) > int(zero[14, 14]) + 50


ONE, TWO = [1.0] + [0.0] * 31, [0.0, 1.0] + [0.0] * 30


@pytest.mark.parametrize(
    ("points", "asked", "taken"),
    [
        ([{"latent": ONE}, {"latent": TWO}], "auto", "slerp"),
        ([{"latent": ONE}, {"label": 1}], "auto", "lerp"),
        ([{"latent": ONE}, {"latent": TWO}], "lerp", "lerp"),
        ([{"label": 0}, {"label": 1}], "slerp", "slerp"),
    ],
)
def test_the_method_is_decided_and_named(client: TestClient, points: list[Any], asked: str, taken: str) -> None:
    answer = client.post("/interpolate", json={"points": points, "steps": 3, "method": asked}).json()
    assert answer["method"] == taken


def test_slerp_stays_on_the_sphere(client: TestClient) -> None:
    points = [{"latent": ONE}, {"latent": TWO}]
    latents = np.array(client.post("/interpolate", json={"points": points, "steps": 5}).json()["latents"])
    np.testing.assert_allclose(np.linalg.norm(latents, axis=1), 1.0, atol=1e-5)


def test_a_strip(client: TestClient) -> None:
    answer = client.post("/interpolate/image", params=PLANE, json={"points": LINE, "steps": 7})
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.content)).size == (7 * 28, 28)


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_an_animation(client: TestClient, format: str) -> None:
    query = PLANE | {"format": format, "duration": "50"}
    answer = client.post("/interpolate/image", params=query, json={"points": LINE, "steps": 7})
    assert answer.headers["content-type"] == f"image/{format}"
    assert Image.open(io.BytesIO(answer.content)).n_frames == 7  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"points": []}, "/points"),
        ({"points": LINE[:1]}, "/points"),
        ({"points": LINE * 9}, "/points"),
        ({"points": [*LINE, {}]}, "/points/2"),
        ({"points": [*LINE, {"label": 1, "latent": [0, 0]}]}, "/points/2"),
        ({"points": [*LINE, {"label": 10}]}, "/points/2/label"),
        ({"points": [*LINE, {"label": -1}]}, "/points/2/label"),
        ({"points": [*LINE, {"label": True}]}, "/points/2/label"),
        ({"points": [*LINE, {"latent": [0.0]}]}, "/points/2/latent"),
        ({"points": [*LINE, {"latent": [0.0, 1e300]}]}, "/points/2/latent"),
        ({"points": [*LINE, {"image": "@@@"}]}, "/points/2/image"),
        ({"points": [*LINE, {"image": "aGVsbG8="}]}, "/points/2/image"),
        ({"points": LINE, "steps": 1}, "/steps"),
        ({"points": LINE, "steps": 65}, "/steps"),
        ({"points": LINE, "steps": "5"}, "/steps"),
        ({"points": LINE, "method": "spline"}, "/method"),
    ],
)
def test_what_is_no_path(client: TestClient, body: dict[str, Any], pointer: str) -> None:
    assert pointers(client.post("/interpolate", params=PLANE, json=body)) == [pointer]


def test_whole_floats_are_integers(client: TestClient) -> None:
    assert len(client.post("/interpolate", params=PLANE, json={"points": LINE, "steps": 3.0}).json()["images"]) == 3


@pytest.mark.parametrize("method", ["lerp", "slerp"])
@pytest.mark.parametrize("first", [[3e38, 3e38], [1e25, -1e25], [1e-40, 1e-40], [0, 0]])
@pytest.mark.parametrize("second", [[-3e38, -3e38], [-3e38, -2.9e38], [0, 1], [1e-40, 0]])
def test_a_path_is_finite_or_refused(client: TestClient, method: str, first: list[float], second: list[float]) -> None:
    body = {"points": [{"latent": first}, {"latent": second}], "steps": 5, "method": method}
    answer = client.post("/interpolate", params={"model": "mnist-2d", "percentile": True}, json=body)
    if answer.status_code == 500:  # the decoder leaves the range of float32
        assert answer.json()["detail"] == NotFinite.failure
        assert 3e38 in map(abs, [*first, *second])
    else:
        assert answer.status_code == 200 or pointers(answer) == ["/points"]
    assert "null" not in answer.text


@pytest.mark.parametrize("member", ["image", "latent", "label"])
def test_what_is_not_given_is_left_out(client: TestClient, member: str) -> None:
    points = [{"latent": [0, 1]}, {"label": 3}]
    points[1] |= {member: None}  # type: ignore[dict-item]
    answer = client.post("/interpolate", params={"model": "mnist-2d"}, json={"points": points})
    assert f"/points/1/{member}" in pointers(answer)
