"""Imported bundles behind the server: vectors, what a plain autoencoder refuses, and maps where they are served."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.conftest import Pixels, base64_png, from_base64
from tests.training.importing.foreign import LATENT, Linear, bring, save
from tests.training.importing.test_torch import PATH, bring_class
from training.importing.options import RANGES, TorchClass


@pytest.fixture(scope="module")
def linear(digits: Pixels) -> Linear:
    return Linear.fitted(digits[:, None])


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory, digits: Pixels) -> Path:
    path = tmp_path_factory.mktemp("samples") / "digits.npz"
    np.savez(path, images=digits[:100])
    return path


@contextmanager
def served(models: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(models_dir=models)), raise_server_exceptions=False) as client:
        yield client


def test_a_vae_answers_everything(linear: Linear, samples: Path, digits: Pixels, tmp_path: Path) -> None:
    source = save(tmp_path, linear.encoder(), linear.decoder("Sigmoid"))
    bring(source, tmp_path, samples, range=RANGES[0], output="probabilities", force=True)
    one = {"images": [base64_png(digits[0])]}
    with served(tmp_path / "models") as client:
        mean = client.post("/encode", json=one).json()["mean"]
        np.testing.assert_allclose(mean, linear.mean(digits[:1, None]), atol=1e-3)
        assert client.post("/encode?draw=true&seed=1", json=one).status_code == 200
        assert client.post("/score?k=4&seed=1", json=one).status_code == 200
        assert client.get("/sample/image?n=4&seed=1").status_code == 200
        assert client.get("/manifold/image?n=3").status_code == 200
        assert len(client.get("/posteriors").json()["mean"]) == 100
        assert client.get("/traverse?direction=0&steps=3").status_code == 200
        points = {"points": [{"image": one["images"][0]}, {"latent": [0.0] * LATENT}], "steps": 3}
        assert len(client.post("/interpolate", json=points).json()["images"]) == 3


def test_a_plain_autoencoder_refuses_what_needs_a_posterior(
    linear: Linear, samples: Path, digits: Pixels, tmp_path: Path
) -> None:
    source = save(tmp_path, linear.encoder("mu"), linear.decoder())
    bring(source, tmp_path, samples, range=RANGES[0], output="image")
    one = {"images": [base64_png(digits[0])]}
    with served(tmp_path / "models") as client:
        answer = client.post("/encode", json=one).json()
        assert "log_std" not in answer
        picture = from_base64(client.post("/reconstruct", json=one).json()["images"][0])
        wanted = np.clip(255 * linear.decoded(linear.mean(digits[:1, None]))[0, 0], 0, 255)
        assert np.abs(picture - wanted).max() <= 1
        for path in ("/encode?draw=true", "/score", "/reconstruct?mode=draw"):
            assert client.post(path, json=one).status_code == 422, path


@pytest.mark.parametrize("size", [8, None])
def test_a_map_is_served(digits: Pixels, tmp_path: Path, size: int | None) -> None:
    recipe = TorchClass(f"{PATH}:Parts", encoder="down", decoder="up")
    bring_class(recipe, tmp_path, range=RANGES[1], output="image", image=(1, size, size))
    image = np.ascontiguousarray(digits[0, :16, :24] if size is None else digits[0, 2:26:3, 2:26:3])
    with served(tmp_path / "models") as client:
        answer = client.post("/encode", json={"images": [base64_png(image)]})
        assert answer.status_code == 200, answer.text
        latents, shape = answer.json()["mean"], answer.json()["latent_shape"]
        assert shape == [2, image.shape[0] // 4, image.shape[1] // 4]
        assert np.shape(latents) == (1, np.prod(shape))
        decoded = client.post("/decode", json={"latents": latents, "latent_shape": shape})
        assert from_base64(decoded.json()["images"][0]).shape == image.shape
        assert client.get("/sample").status_code == 422  # nothing made its latents follow N(0, I)
