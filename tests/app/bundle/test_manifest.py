"""The bundle contract: what is read back is what was written, and what is damaged is refused by the file's name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.bundle.files import describe, read_bundle, read_manifest, write_array, write_manifest
from app.errors import BundleError


@pytest.fixture
def directory(models_copy: Path) -> Path:
    return models_copy / "mnist-2d" / "1"


def edit(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_a_manifest_survives_writing_and_reading(directory: Path) -> None:
    manifest = read_manifest(directory)
    write_manifest(directory, manifest)
    assert read_manifest(directory) == manifest
    assert sorted(path.name for path in directory.iterdir() if path.name.startswith(".")) == []


def test_a_bundle_holds_graphs_and_arrays(directory: Path) -> None:
    bundle = read_bundle(directory)
    assert bundle.encoder == (directory / "encoder.onnx").read_bytes()
    assert bundle.arrays["label_means"].shape == (10, 2)
    assert not bundle.arrays["label_means"].flags.writeable
    assert bundle.manifest.stochastic


MEASURED = {
    "precision": "int8",
    "source": 1,
    "measured_on": "cpu",
    "split": "test",
    "images": 10,
    "seed": 0,
    "measure": "negative_elbo",
    "change": 0.0,
    "standard_error": 0.0,
    "bound": 0.1,
    "mean_change": 0.0,
    "pixel_change": 0,
    "size": 1,
    "size_before": 1,
}


def reduce_for(directory: Path, provider: str, half: str = "decoder") -> None:
    """Put another file of the same graph beside a bundle's, for a provider."""
    (directory / f"{half}.other.onnx").write_bytes((directory / f"{half}.onnx").read_bytes() + b"\x52\x00")
    graphs = {name: describe(directory / f"{name}.onnx") for name in ("encoder", "decoder")}
    reduced = {provider: MEASURED | graphs | {half: describe(directory / f"{half}.other.onnx")}}
    edit(directory, lambda manifest: manifest.update(reduced=reduced))


def test_a_provider_takes_the_graphs_that_are_reduced_for_it(directory: Path) -> None:
    reduce_for(directory, "cuda")
    bundle = read_bundle(directory)
    assert bundle.graphs_of("cpu") == (bundle.encoder, bundle.decoder)
    assert bundle.graphs_of("cuda") == (bundle.encoder, (directory / "decoder.other.onnx").read_bytes())
    assert [file.file for file in bundle.manifest.graphs_of("cuda")] == ["encoder.onnx", "decoder.other.onnx"]
    assert "decoder.other.onnx" in bundle.manifest.files
    (directory / "decoder.other.onnx").write_bytes(b"x")
    with pytest.raises(BundleError, match=r"decoder\.other\.onnx does not have the sha256"):
        read_bundle(directory)


@pytest.mark.parametrize(
    ("provider", "sentence"), [("any", "`graphs` themselves"), ("tpu", "one of any, cpu, cuda")], ids=str
)
def test_graphs_that_are_reduced_for_nobody_are_refused(directory: Path, provider: str, sentence: str) -> None:
    reduce_for(directory, provider)
    with pytest.raises(BundleError, match=sentence):
        read_bundle(directory)


def test_an_array_is_described_as_it_is_written(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    entry = write_array(tmp_path, "six", array)
    assert entry.model_dump() == describe(tmp_path / "six.npy") | {"dtype": "float32", "shape": (2, 3)}
    assert np.array_equal(np.load(tmp_path / "six.npy"), array)


@pytest.mark.parametrize("name", ["manifest.json", "encoder.onnx", "decoder.onnx", "label_means.npy"])
def test_a_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(BundleError, match=name):
        read_bundle(directory)


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.onnx", "label_means.npy"])
def test_a_file_with_another_hash_is_named(directory: Path, name: str) -> None:
    with (directory / name).open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=f"{name} does not have the sha256"):
        read_bundle(directory)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown format": (lambda m: m.update(format=2), "unknown format"),
    "no format of the bundle's": (lambda m: m.update(format="x"), "unknown format"),
    "path for a name": (lambda m: m.update(name="../mnist"), "name"),
    "version zero": (lambda m: m.update(version=0), "version"),
    "unknown member": (lambda m: m.update(colour="red"), "colour"),
    "missing member": (lambda m: m.pop("likelihood"), "likelihood"),
    "file outside": (lambda m: m["graphs"]["encoder"].update(file="../encoder.onnx"), "file"),
    "no mean": (lambda m: m["graphs"]["encoder"]["outputs"].pop("mean"), "encoder must map"),
    "no image": (lambda m: m["graphs"]["decoder"]["outputs"].pop("image"), "decoder must map"),
    "factors of other channels": (lambda m: m["latent"].update(scaling_factor=[1, 2, 3]), "one per channel"),
    "shifts of other channels": (lambda m: m["latent"].update(shift_factor=[1]), "one per channel"),
    "mode of other channels": (lambda m: m["image"].update(mode="RGB"), "mode RGB"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_manifest_that_breaks_the_contract_is_refused(directory: Path, change: str) -> None:
    edit(directory, CHANGES[change][0])
    with pytest.raises(BundleError, match=CHANGES[change][1]) as caught:
        read_bundle(directory)
    assert "manifest.json" in str(caught.value)


def test_a_manifest_that_is_not_json_is_refused(directory: Path) -> None:
    (directory / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match=r"manifest\.json"):
        read_bundle(directory)


def test_an_array_of_another_shape_than_described_is_refused(directory: Path) -> None:
    edit(directory, lambda m: m["arrays"]["label_means"].update(shape=[9, 2]))
    with pytest.raises(BundleError, match=r"label_means\.npy is not the float32 array"):
        read_bundle(directory)


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk", b"\x93NUMPY\x01\x00\x04\x00{'a'"])
def test_an_array_that_is_not_npy_is_refused(directory: Path, content: bytes) -> None:
    path = directory / "label_means.npy"
    path.write_bytes(content)
    edit(directory, lambda m: m["arrays"]["label_means"].update(describe(path)))
    with pytest.raises(BundleError, match=r"label_means\.npy is not an npy file"):
        read_bundle(directory)
