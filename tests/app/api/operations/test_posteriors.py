"""`GET /posteriors`: held-out posterior means, and their scatter."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.bundle.files import read_manifest, write_manifest
from app.codecs.scatter import SIZE
from tests.conftest import Pixels, base64_png, pointers


def test_they_are_what_encode_answers(client: TestClient, digits: Pixels, labels: Pixels) -> None:
    body = client.get("/posteriors?n=40&space=latent").json()
    encoded = client.post("/encode", json={"images": [base64_png(digit) for digit in digits[:80:2]]}).json()
    assert np.allclose(body["mean"], encoded["mean"], atol=1e-4)
    assert body["labels"] == labels[:80:2].tolist()
    assert body["dims"] == list(range(32))


def test_without_dims_the_plane_is_the_manifolds(client: TestClient) -> None:
    body = client.get("/posteriors?n=3").json()
    whole = client.get("/posteriors?n=3&space=latent").json()
    assert [[row[dim] for dim in body["dims"]] for row in whole["mean"]] == body["mean"]
    kl = client.get("/models/mnist").json()["manifest"]["metrics"]["kl_per_dimension"]
    assert body["dims"] == sorted(sorted(range(32), key=lambda dim: -kl[dim])[:2])


def test_dims_are_chosen_and_turned(client: TestClient) -> None:
    plane, turned = (client.get(f"/posteriors?n=5&{dims}").json() for dims in ("dims=3&dims=1", "dims=1&dims=3"))
    assert plane["dims"] == [3, 1]
    assert [row[::-1] for row in plane["mean"]] == turned["mean"]
    assert pointers(client.get("/posteriors?dims=3")) == ["/query/dims"]
    assert pointers(client.get("/posteriors?dims=3&dims=1&space=latent")) == ["/query/dims"]
    assert pointers(client.get("/posteriors?dims=3&dims=3")) == ["/query/dims"]
    assert pointers(client.get("/posteriors/image?dims=3&dims=32")) == ["/query/dims"]


def test_all_of_them_are_there_and_their_percentiles_are_even(client: TestClient) -> None:
    body = client.get("/posteriors?model=mnist-2d&percentile=true").json()
    assert len(body["mean"]) == len(body["labels"]) == 5000
    assert np.quantile(body["latent_percentile"], [0.1, 0.5, 0.9]).tolist() == pytest.approx([10, 50, 90], abs=1)


def test_the_scatter_shows_each_class_in_its_colour(client: TestClient) -> None:
    answer = client.get("/posteriors/image?model=mnist-2d")
    picture = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)
    assert answer.headers["content-type"] == "image/png"
    for color in [(31, 119, 180), (255, 127, 14), (23, 190, 207)]:
        assert (np.abs(picture[60:] - color).sum(axis=2) < 60).sum() > 200


def test_a_bundle_without_them_says_so(make_client: Callable[..., TestClient], models_copy: Path) -> None:
    directory = models_copy / "mnist-2d" / "1"
    manifest = read_manifest(directory)
    names = ("held_out_means", "held_out_labels", "directions", "prior_norm_quantiles")
    arrays = {name: array for name, array in manifest.arrays.items() if name not in names}
    write_manifest(directory, manifest.model_copy(update={"arrays": arrays}))
    client = make_client()
    assert pointers(client.get("/posteriors")) == ["/query/model"]
    assert pointers(client.get("/posteriors/image")) == ["/query/model"]
    assert pointers(client.get("/traverse?direction=0")) == ["/query/direction"]
    assert pointers(client.get("/sample?percentile=true")) == ["/query/percentile"]


def test_without_classes_there_are_no_labels(make_client: Callable[..., TestClient], models_copy: Path) -> None:
    directory = models_copy / "mnist-2d" / "1"
    manifest = read_manifest(directory)
    arrays = {name: array for name, array in manifest.arrays.items() if name != "held_out_labels"}
    write_manifest(directory, manifest.model_copy(update={"arrays": arrays}))
    client = make_client()
    assert "labels" not in client.get("/posteriors?n=2").json()
    assert client.get("/posteriors/image?format=webp").headers["content-type"] == "image/webp"


def test_a_plot_too_large_is_not_drawn(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.api.operations.posteriors.scatter", None)
    assert pointers(client.get("/posteriors/image?n=3&scale=6")) == ["/query/scale"]


def test_the_plot_is_enlarged_up_to_the_limit_of_pixels(
    client: TestClient, make_client: Callable[..., TestClient]
) -> None:
    answer = client.get("/posteriors/image?n=3&scale=5")
    assert Image.open(io.BytesIO(answer.content)).size == (5 * SIZE, 5 * SIZE)
    assert pointers(client.get("/posteriors/image?n=3&scale=6")) == ["/query/scale"]
    more = make_client(max_pixels=(6 * SIZE) ** 2)
    answer = more.get("/posteriors/image?n=3&scale=6")
    assert Image.open(io.BytesIO(answer.content)).size == (6 * SIZE, 6 * SIZE)
    assert pointers(more.get("/posteriors/image?n=3&scale=7")) == ["/query/scale"]
