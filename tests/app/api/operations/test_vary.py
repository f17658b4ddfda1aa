"""`POST /vary`: draws around the posterior of one picture."""

import io

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from tests.conftest import Pixels, base64_png, pointers


def test_a_radius_of_one_draws_from_the_posterior(client: TestClient, digits: Pixels) -> None:
    body = {"images": [base64_png(digits[0])]}
    encoded = client.post("/encode?draw=true&seed=3", json=body).json()
    varied = client.post("/vary?n=1&seed=3", json=body).json()
    assert varied["latents"] == encoded["latents"]
    assert varied["seed"] == 3


def test_the_radius_scales_the_distance_from_the_mean(client: TestClient, digits: Pixels) -> None:
    body = {"images": [base64_png(digits[0])]}
    mean = np.array(client.post("/encode", json=body).json()["mean"])
    near, far = (
        np.array(client.post(f"/vary?n=50&seed=3&radius={radius}", json=body).json()["latents"]) - mean
        for radius in (0.5, 2)
    )
    assert np.allclose(far, 4 * near, atol=1e-5)
    assert (client.post("/vary?n=2&radius=0", json=body).json()["latents"] == mean.repeat(2, axis=0)).all()


def test_neighbours_are_spread_as_the_posterior_says(client: TestClient, digits: Pixels) -> None:
    body = {"images": [base64_png(digits[1])]}
    posterior = client.post("/encode?model=mnist-2d", json=body).json()
    drawn = np.array(client.post("/vary?model=mnist-2d&n=256&seed=1&radius=3", json=body).json()["latents"])
    assert np.allclose(drawn.std(axis=0) / np.exp(posterior["log_std"][0]), 3, rtol=0.15)


def test_more_neighbours_leave_the_first_as_they_were(client: TestClient, digits: Pixels) -> None:
    body = {"images": [base64_png(digits[0])]}
    few, many = (client.post(f"/vary?n={n}&seed=9", json=body).json() for n in (2, 5))
    assert many["latents"][:2] == few["latents"]
    assert many["images"][:2] == few["images"]


def test_as_a_grid(client: TestClient, digits: Pixels) -> None:
    answer = client.post("/vary/image?n=6&columns=3&seed=2", json={"images": [base64_png(digits[0])]})
    assert Image.open(io.BytesIO(answer.content)).size == (84, 56)
    assert answer.headers["x-seed"] == "2"


def test_it_is_of_one_picture_and_of_a_posterior(client: TestClient, digits: Pixels) -> None:
    picture = base64_png(digits[0])
    assert pointers(client.post("/vary", json={"images": [picture, picture]})) == ["/images"]
    assert pointers(client.post("/vary?model=digits-ae", json={"images": [picture]})) == ["/query/model"]
    assert pointers(client.post("/vary?n=257", json={"images": [picture]})) == ["/query/n"]
    assert pointers(client.post("/vary?radius=-1", json={"images": [picture]})) == ["/query/radius"]
