"""What the forms of an operation share: the percentiles of latents."""

from collections.abc import Callable
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from app.bundle.files import read_bundle
from tests.conftest import MODELS, Pixels, base64_png, load_npz, npy


def chi_square_2(latents: Any) -> np.ndarray:
    """Per cent of a two-dimensional standard normal nearer to the origin: 1 - exp(-|z|^2 / 2)."""
    return 100 * (1 - np.exp(-np.square(latents).sum(axis=1) / 2))


def test_latents_are_placed_among_prior_draws(client: TestClient) -> None:
    body = client.get("/sample?model=mnist-2d&n=50&seed=1&percentile=true").json()
    assert np.allclose(body["latent_percentile"], chi_square_2(body["latents"]), atol=0.1)
    assert "latent_percentile" not in client.get("/sample?model=mnist-2d&seed=1").json()


def test_every_path_of_latents_is_placed(client: TestClient, digits: Pixels) -> None:
    points = {"points": [{"label": 1}, {"latent": [3, 4]}], "steps": 4}
    picture = {"images": [base64_png(digits[0])]}
    calls: list[Callable[[str], Any]] = [
        lambda query: client.post(f"/interpolate?{query}", json=points),
        lambda query: client.post(f"/vary?{query}&seed=1", json=picture),
        lambda query: client.get(f"/traverse?{query}"),
    ]
    for call in calls:
        body = call("model=mnist-2d&percentile=true").json()
        assert np.allclose(body["latent_percentile"], chi_square_2(body["latents"]), atol=0.1)


def test_posterior_means_are_placed_among_held_out_ones_and_draws_among_the_priors(
    client: TestClient, digits: Pixels
) -> None:
    images = {"images": [base64_png(digit) for digit in digits[:100]]}
    body = client.post("/encode?model=mnist-2d&percentile=true&draw=true&seed=1", json=images).json()
    arrays = read_bundle(MODELS / "mnist-2d" / "2").arrays
    squares = np.square(arrays["held_out_means"]).sum(axis=1)
    expected = [100 * (squares < np.square(mean).sum()).mean() for mean in body["mean"]]
    assert np.allclose(body["latent_percentile"], expected, atol=2)
    assert np.allclose(body["draw_percentile"], chi_square_2(body["latents"]), atol=0.1)


def test_npz_has_percentiles_too(client: TestClient, digits: Pixels) -> None:
    headers = {"Content-Type": "application/x-npy"}
    query = "/encode/npy?model=digits-ae&percentile=true"
    arrays = load_npz(client.post(query, content=npy(digits[:3]), headers=headers).content)
    assert set(arrays) == {"mean", "latent_percentile"}
    assert ((arrays["latent_percentile"] >= 0) & (arrays["latent_percentile"] <= 100)).all()
