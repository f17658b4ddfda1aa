"""`/reconstruct`: by the mean, by a draw, by the posterior predictive."""

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from tests.conftest import Pixels, base64_png, from_base64, load_npy, load_npz, npy, png, pointers


def reconstruct(client: TestClient, images: Pixels, **query: Any) -> Any:
    return client.post("/reconstruct", params=query, json={"images": [base64_png(image) for image in images]})


@pytest.mark.parametrize("model", ["mnist", "mnist-2d", "digits-ae"])
def test_the_mean_is_what_decode_gives_for_the_encoded_mean(client: TestClient, digits: Pixels, model: str) -> None:
    answer = reconstruct(client, digits[:3], model=model)
    assert answer.status_code == 200
    assert "seed" not in answer.json()
    posterior = load_npz(
        client.post("/encode/npy", params={"model": model}, content=npy(digits[:3]), headers=NPY).content
    )
    decoded = client.post("/decode/npy", params={"model": model}, content=npy(posterior["mean"]), headers=NPY)
    assert (np.stack([from_base64(image) for image in answer.json()["images"]]) == load_npy(decoded.content)).all()


NPY = {"Content-Type": "application/x-npy"}


def test_a_draw_is_what_decode_gives_for_the_encoded_draw(client: TestClient, digits: Pixels) -> None:
    answer = reconstruct(client, digits[:4], mode="draw", seed=5)
    assert answer.json()["seed"] == 5
    drawn = client.post("/encode/npy", params={"draw": True, "seed": 5}, content=npy(digits[:4]), headers=NPY)
    decoded = client.post("/decode/npy", content=npy(load_npz(drawn.content)["latents"]), headers=NPY)
    assert (np.stack([from_base64(image) for image in answer.json()["images"]]) == load_npy(decoded.content)).all()


def test_the_predictive_averages_32_draws_the_first_of_which_is_the_draw(client: TestClient, digits: Pixels) -> None:
    many = np.repeat(digits[:1], 2, axis=0)
    predictive = load_npy(
        client.post(
            "/reconstruct/npy", params={"mode": "predictive", "seed": 1}, content=npy(many), headers=NPY
        ).content
    ).astype(float)
    mean = load_npy(client.post("/reconstruct/npy", content=npy(many), headers=NPY).content).astype(float)
    draws = [
        load_npy(
            client.post("/reconstruct/npy", params={"mode": "draw", "seed": s}, content=npy(many), headers=NPY).content
        ).astype(float)
        for s in range(40)
    ]
    spread = np.abs(draws - np.mean(draws, axis=0)).mean()
    assert np.abs(predictive - np.mean(draws, axis=0)).mean() < spread / 2  # of 32 draws: nearer to the middle than one
    assert np.abs(predictive - mean).mean() > 0
    assert (predictive[0] != predictive[1]).any()  # each row has draws of its own


def test_all_forms_agree(client: TestClient, digits: Pixels) -> None:
    query = {"mode": "predictive", "seed": 9, "model": "mnist-2d"}
    listed = reconstruct(client, digits[:40], **query).json()["images"]
    files = [("images", (f"{i}.png", png(digit), "image/png")) for i, digit in enumerate(digits[:40])]
    assert client.post("/reconstruct/files", params=query, files=files).json()["images"] == listed
    array = client.post("/reconstruct/npy", params=query, content=npy(digits[:40]), headers=NPY)
    assert array.headers["x-seed"] == "9"
    assert (load_npy(array.content) == np.stack([from_base64(image) for image in listed])).all()


def test_a_row_does_not_depend_on_how_many_there_are(client: TestClient, digits: Pixels) -> None:
    few = reconstruct(client, digits[:2], mode="predictive", seed=3).json()["images"]
    assert reconstruct(client, digits[:70], mode="predictive", seed=3).json()["images"][:2] == few


@pytest.mark.parametrize("mode", ["draw", "predictive"])
def test_a_plain_autoencoder_has_nothing_to_draw_from(client: TestClient, digits: Pixels, mode: str) -> None:
    assert pointers(reconstruct(client, digits[:1], model="digits-ae", mode=mode)) == ["/query/mode"]


def test_what_is_wrong_is_pointed_at(client: TestClient, digits: Pixels) -> None:
    assert pointers(reconstruct(client, digits[:1], mode="median")) == ["/query/mode"]
    assert pointers(client.post("/reconstruct", json={"images": []})) == ["/images"]
    assert pointers(client.post("/reconstruct", json={"images": ["AAAA"]})) == ["/images/0"]
