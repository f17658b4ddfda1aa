"""Every metric has a row, with its unit and what it was measured on."""

from pathlib import Path
from typing import Any

import pytest

from app.bundle.files import read_manifest
from app.bundle.manifest import Manifest
from tests.training.linear import Linear
from training.card import metric_rows

METRICS: dict[str, Any] = {
    "split": "test",
    "binarization": "none",
    "images": 10_000,
    "k": 128,
    "seed": 0,
    "elbo": -87.334,
    "negative_elbo": 87.334,
    "nll": 83.557,
    "nll_standard_error": 0.208,
    "reconstruction": 59.736,
    "mean_squared_error": 0.012345,
    "bits_per_dimension": 2.3456,
    "kl": 27.598,
    "kl_per_dimension": [1.0, 2.0, 0.0],
    "variance_per_dimension": [0.9, 1.0, 0.0],
    "active_units": 2,
    "aggregate_gap": 3.214,
    "train_negative_elbo": 86.769,
    "train_nll": 83.1,
    "nll_at_train_k": 84.2,
    "train_images": 1_000,
    "train_k": 16,
    "tight": {"k": 5000, "images": 500, "nll": 82.5, "nll_standard_error": 0.9, "seed": 0},
}
PLAIN = ("split", "binarization", "images", "reconstruction", "mean_squared_error", "aggregate_gap", "train_images")


def manifest(folder: Path, **options: Any) -> Manifest:
    return read_manifest(Linear(**options).write(folder))


def rows(metrics: dict[str, Any], manifest: Manifest) -> dict[str, tuple[str, str]]:
    found = metric_rows(metrics, manifest)
    assert len({name for name, _, _ in found}) == len(found), "no two rows have one name"
    return {name: (value, on) for name, value, on in found}


def test_values_are_the_manifests_with_their_units(tmp_path: Path) -> None:
    assert {name: value for name, (value, _) in rows(METRICS, manifest(tmp_path)).items()} == {
        "NLL": "83.56 ± 0.21 nats",
        "NLL, k = 5000": "82.50 ± 0.90 nats",
        "Bits per dimension": "2.346 bits",
        "-ELBO": "87.33 nats",
        "Reconstruction": "59.74 nats",
        "KL": "27.60 nats",
        "Active units": "2 of 3",
        "Reconstruction error (MSE)": "0.0123 a pixel",
        "Aggregated posterior to prior": "3.21 nats",
        "-ELBO, training split": "86.77 nats",
        "NLL, training split": "83.10 nats",
        "NLL, k = 16": "84.20 nats",
    }


def test_every_row_says_what_it_was_measured_on(tmp_path: Path) -> None:
    found = rows(METRICS | {"binarization": "dynamic"}, manifest(tmp_path, likelihood="bernoulli"))
    for name, (_, on) in found.items():
        assert on.startswith("dynamically binarized odd, ")
        assert ("train, first 1,000 images" in on) is name.endswith("training split")
        images = "first 500 images" if name == "NLL, k = 5000" else "images"
        assert images in on
    assert "k = 128: the IWAE-128 bound" in found["NLL"][1]
    assert "k = 5000: the IWAE-5000 bound" in found["NLL, k = 5000"][1]


@pytest.mark.parametrize(
    ("options", "binarization", "kind"),
    [
        ({"likelihood": "bernoulli"}, "static", "statically binarized odd"),
        ({"likelihood": "gaussian"}, "none", "colour odd in [0, 1], Gaussian density"),
        ({"likelihood": "discretized_logistic", "channels": 1}, "none", "8-bit grey odd"),
        ({"likelihood": "bernoulli", "channels": 1, "stochastic": False}, "none", "grey odd"),
    ],
    ids=str,
)
def test_pixels_of_each_kind_are_named(tmp_path: Path, options: dict[str, Any], binarization: str, kind: str) -> None:
    metrics = METRICS | {"binarization": binarization, "train_reconstruction": 60.0}
    found = rows(metrics, manifest(tmp_path, **options))
    assert found
    assert all(on.startswith(f"{kind}, ") for _, on in found.values())


def test_only_a_densitys_nll_can_be_negative(tmp_path: Path) -> None:
    for likelihood in ("gaussian", "discretized_logistic"):
        on = rows(METRICS, manifest(tmp_path / likelihood, likelihood=likelihood))["NLL"][1]
        assert ("can be negative" in on) is (likelihood == "gaussian")


@pytest.mark.parametrize("key", ["tight", "bits_per_dimension", "aggregate_gap"])
def test_a_metric_that_not_every_bundle_has_may_be_absent(tmp_path: Path, key: str) -> None:
    of = manifest(tmp_path)
    without = rows({name: METRICS[name] for name in METRICS if name != key}, of)
    assert len(without) == len(rows(METRICS, of)) - 1
    assert not any("None" in " ".join(row) for row in without.values())


def test_nothing_measured_is_no_row(tmp_path: Path) -> None:
    assert metric_rows({}, manifest(tmp_path)) == []


@pytest.mark.parametrize(("likelihood", "is_none"), [("bernoulli", True), ("gaussian", False)])
def test_an_autoencoders_reconstruction_of_grey_values_is_no_likelihood(
    tmp_path: Path, likelihood: str, is_none: bool
) -> None:
    metrics = {name: METRICS[name] for name in PLAIN} | {"train_reconstruction": 60.0}
    found = rows(metrics, manifest(tmp_path, stochastic=False, likelihood=likelihood))
    assert {name: value for name, (value, _) in found.items()} == {
        "Reconstruction": "59.74 nats",
        "Reconstruction, training split": "60.00 nats",
        "Reconstruction error (MSE)": "0.0123 a pixel",
        "Aggregated posterior to prior": "3.21 nats",
    }
    for name in ("Reconstruction", "Reconstruction, training split"):
        assert ("no likelihood" in found[name][1]) is is_none
