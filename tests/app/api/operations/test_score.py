"""`/score`: the same figures as the offline evaluation, from any form of request."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.progress import Progress
from starlette.testclient import TestClient

from app.bundle.files import read_bundle
from app.maths.bounds import calibration_of
from app.maths.bounds import score as scores_of
from app.maths.gaussian import Posterior
from app.maths.likelihood import threshold
from tests.conftest import DIGITS, MODELS, Pixels, base64_png, from_base64, load_npz, npy, png, pointers
from training.evaluate import measure_terms, prepare
from training.offline import OfflineGraphs

NPY = {"Content-Type": "application/x-npy"}
NAMES = ("elbo", "log_likelihood", "reconstruction", "kl", "kl_per_dimension", "effective_sample_size")


def score(client: TestClient, images: Pixels, **query: Any) -> dict[str, NDArray[Any]]:
    answer = client.post("/score/npy", params=query, content=npy(images), headers=NPY)
    assert answer.status_code == 200, answer.text
    return load_npz(answer.content)


@pytest.mark.parametrize("bundle", ["mnist/2", "mnist-2d/1", "mnist-2d/2"])
def test_scores_are_the_offline_evaluations(client: TestClient, digits: Pixels, bundle: str) -> None:
    name, version = bundle.split("/")
    graphs = OfflineGraphs(read_bundle(MODELS / bundle))
    images = prepare(digits[:30, None], graphs.manifest, seed=0)
    with Progress(disable=True) as progress:
        terms = measure_terms(graphs, images, k=128, seed=0, progress=progress, name="")
    scores = score(client, digits[:30], model=name, version=version, k=128, seed=0)
    assert (scores["k"], scores["binarize"]) == (128, "draw")
    for ours, theirs in (
        ("log_likelihood", terms.bounds[128]),
        ("reconstruction", terms.reconstruction),
        ("kl_per_dimension", terms.kl),
        ("elbo", -terms.reconstruction - terms.kl.sum(axis=1)),
    ):
        np.testing.assert_allclose(scores[ours], theirs, rtol=1e-5)


def test_all_forms_agree(client: TestClient, digits: Pixels) -> None:
    query = {"k": 16, "seed": 4}
    arrays = score(client, digits[:5], **query)
    listed = client.post("/score", params=query, json={"images": [base64_png(digit) for digit in digits[:5]]}).json()
    files = [("images", (f"{i}.png", png(digit), "image/png")) for i, digit in enumerate(digits[:5])]
    assert client.post("/score/files", params=query, files=files).json() == listed
    assert (listed["model"], listed["version"], listed["k"], listed["binarize"], listed["seed"]) == (
        "mnist",
        2,
        16,
        "draw",
        4,
    )
    for name in (*NAMES, "score_percentile"):
        np.testing.assert_allclose(listed[name], arrays[name], rtol=DIGITS)


def test_the_bound_grows_with_k_and_one_draw_is_an_elbo(client: TestClient, digits: Pixels) -> None:
    one, many = score(client, digits[:40], k=1, seed=0), score(client, digits[:40], k=256, seed=0)
    assert many["log_likelihood"].mean() > one["log_likelihood"].mean() + 2
    assert one["effective_sample_size"].tolist() == [1.0] * 40
    assert ((many["effective_sample_size"] >= 1) & (many["effective_sample_size"] <= 256)).all()
    np.testing.assert_allclose(one["elbo"], -(one["reconstruction"] + one["kl"]))


def test_percentiles_tell_digits_from_what_is_none(client: TestClient, digits: Pixels) -> None:
    usual = score(client, digits[:200], seed=0)["score_percentile"]
    assert 35 < usual.mean() < 65  # uniform among themselves
    noise = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    assert score(client, noise, seed=0)["score_percentile"].tolist() == [0.0] * 5
    assert "score_percentile" not in score(client, digits[:1], k=17)  # not a k of the calibration
    assert "score_percentile" not in score(client, digits[:1], k=16, binarize="threshold")


def test_binarization(client: TestClient, digits: Pixels) -> None:
    binary = threshold(digits[:3])
    chosen = score(client, digits[:3], binarize="threshold", seed=0)
    assert (
        chosen["log_likelihood"].tolist() == score(client, binary, binarize="none", seed=0)["log_likelihood"].tolist()
    )
    assert chosen["binarize"] == "threshold"
    grey = client.post("/score/npy", params={"binarize": "none"}, content=npy(digits[:3]), headers=NPY)
    assert pointers(grey) == ["/images/0"]


def test_an_image_of_many_draws_is_scored_in_pieces(client: TestClient, digits: Pixels) -> None:
    scores = score(client, digits[:1], k=3000, seed=0, model="mnist-2d")
    assert (
        scores["log_likelihood"][0] >= score(client, digits[:1], k=1000, seed=0, model="mnist-2d")["log_likelihood"] - 1
    )


def test_what_cannot_be_scored_is_refused(client: TestClient, digits: Pixels) -> None:
    def refused(**query: Any) -> list[str]:
        return pointers(client.post("/score/npy", params=query, content=npy(digits[:2]), headers=NPY))

    assert refused(model="digits-ae") == ["/query/model"]
    assert refused(k=32_768) == ["/query/k"]
    assert refused(k=0) == ["/query/k"]
    assert refused(binarize="dither") == ["/query/binarize"]


def test_weights_and_percentiles_by_hand() -> None:
    posterior = Posterior(np.array([[0.5]], np.float32), np.array([[-0.5]], np.float32))
    eps, log_p_x = np.array([[[1.0], [-2.0]]], np.float32), np.array([[-3.0, -4.0]])
    percentiles, quantiles = np.array([0, 50, 100], np.float32), np.array([[-6, -4, -2]], np.float32)
    calibration = calibration_of({"percentiles": percentiles, "score_k": np.array([2]), "score_quantiles": quantiles})
    assert calibration.keys() == {2}
    z = 0.5 + np.exp(-0.5) * eps[0, :, 0]
    found = scores_of(log_p_x, posterior, eps, z.astype(np.float32).reshape(1, 2, 1), calibration[2])
    log_w = log_p_x[0] - 0.5 * z**2 - (-0.5 * eps[0, :, 0] ** 2 + 0.5)
    np.testing.assert_allclose(found.log_likelihood, [np.log(np.exp(log_w).mean())], rtol=1e-6)
    np.testing.assert_allclose(
        found.effective_sample_size, [np.exp(log_w).sum() ** 2 / (np.exp(log_w) ** 2).sum()], rtol=1e-6
    )
    assert found.score_percentile is not None
    np.testing.assert_allclose(found.score_percentile, 50 + 25 * (found.log_likelihood + 4), rtol=1e-6)
    assert calibration_of({}) == {}


def explained(client: TestClient, images: list[str], query: str) -> dict[str, Any]:
    answer = client.post(f"/score?explain=true&seed=1&{query}", json={"images": images})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("k", [1, 16, 700])
def test_an_explanation_adds_up_to_the_reconstruction(client: TestClient, digits: Pixels, k: int) -> None:
    body = explained(client, [base64_png(digit) for digit in digits[:3]], f"model=mnist-2d&k={k}")
    for row in range(3):
        low, high = body["explanation_nats"][row]
        terms = low + from_base64(body["explanation"][row]).astype(float) / 255 * (high - low)
        assert terms.shape == (28, 28)
        assert terms.sum() == pytest.approx(body["reconstruction"][row], rel=0.02)
        assert low == 0
        assert high == pytest.approx(terms.max())


def test_an_explanation_changes_no_score(client: TestClient, digits: Pixels) -> None:
    images = [base64_png(digits[0])]
    plain = client.post("/score?seed=1&k=16", json={"images": images}).json()
    body = explained(client, images, "k=16")
    assert {name: body[name] for name in plain} == plain
    assert set(body) - set(plain) == {"explanation", "explanation_nats"}


def test_an_odd_stroke_is_what_an_explanation_shows(client: TestClient, digits: Pixels) -> None:
    odd = digits[1].copy()
    odd[1:3, 1:12] = 255
    body = explained(client, [base64_png(odd)], "k=16")
    picture = from_base64(body["explanation"][0]).astype(float)
    assert picture[1:3, 1:12].mean() > 10 * np.delete(picture, [0, 1, 2, 3], axis=0).mean()


def test_npz_has_explanations_as_pixels(client: TestClient, digits: Pixels) -> None:
    headers = {"Content-Type": "application/x-npy"}
    query = "/score/npy?explain=true&seed=1&model=mnist-2d"
    arrays = load_npz(client.post(query, content=npy(digits[:3]), headers=headers).content)
    body = explained(client, [base64_png(digit) for digit in digits[:3]], "model=mnist-2d")
    assert arrays["explanation"].shape == (3, 28, 28)
    assert (arrays["explanation"][2] == from_base64(body["explanation"][2])).all()
    np.testing.assert_allclose(body["explanation_nats"], arrays["explanation_nats"], rtol=DIGITS)


@pytest.mark.parametrize(("name", "version"), [("mnist", 1), ("mnist", 2), ("mnist-2d", 1), ("mnist-2d", 2)])
def test_images_unlike_any_are_told_in_finite_numbers(
    client: TestClient, digits: Pixels, name: str, version: int
) -> None:
    rng = np.random.default_rng(0)
    odd = [
        255 - digits[0],
        np.full((28, 28), 255),
        rng.integers(0, 256, (28, 28)),
        255 * (np.indices((28, 28)).sum(0) % 2),
    ]
    query = {"model": name, "version": version, "seed": 1}
    body = {"images": [base64_png(pixels.astype(np.uint8)) for pixels in odd]}
    scored = client.post("/score", params=query | {"explain": True}, json=body)
    drawn = client.post("/encode", params=query | {"draw": True, "percentile": True}, json=body)
    near = {"images": body["images"][:1]}
    varied = client.post("/vary", params=query | {"radius": 100, "percentile": True}, json=near)
    for answer in (scored, drawn, varied):
        assert answer.status_code == 200
        assert "null" not in answer.text
    assert client.post("/reconstruct", params=query | {"mode": "predictive"}, json=body).status_code == 200
