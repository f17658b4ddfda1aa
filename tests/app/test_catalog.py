"""Discovery of the models directory, and what stops the server at start."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.batcher import Batcher
from app.bundle import Manifest, describe, read_bundle, read_manifest, write_array, write_manifest
from app.catalog import Catalog, load_catalog
from app.errors import BundleError, ExecutionProviderError, StartupError, UnknownModel
from tests.conftest import MODELS


def load(models: Path, default: str = "mnist-2d") -> Catalog:
    return load_catalog(models, default, Batcher(), execution_providers=["cpu"], threads=1)


def add_version(models: Path, version: int, name: str = "mnist-2d") -> Path:
    directory = models / name / str(version)
    shutil.copytree(models / "mnist-2d" / "1", directory)
    manifest = read_manifest(directory)
    write_manifest(directory, manifest.model_copy(update={"name": name, "version": version}))
    return directory


def test_the_newest_version_answers_unless_another_is_named(models_copy: Path) -> None:
    for version in (2, 10):
        add_version(models_copy, version)
    catalog = load(models_copy)
    assert catalog.find().manifest.version == 10
    assert catalog.find("mnist-2d", 2).manifest.version == 2
    assert catalog.versions("mnist-2d") == [1, 2, 10]


def test_unknown_names_and_versions_are_not_found(models_copy: Path) -> None:
    catalog = load(models_copy)
    for name, version in (("nope", None), ("../mnist-2d", None), ("mnist-2d", 2)):
        with pytest.raises(UnknownModel):
            catalog.find(name, version)


def test_a_lone_model_is_the_default(models_copy: Path) -> None:
    assert load(models_copy, default="mnist").default == "mnist-2d"


def test_of_several_models_the_default_must_be_one(models_copy: Path) -> None:
    add_version(models_copy, 1, name="other")
    assert load(models_copy, default="other").default == "other"
    with pytest.raises(StartupError, match="VAE_DEFAULT_MODEL is mnist, but the models are mnist-2d, other"):
        load(models_copy, default="mnist")


def test_an_empty_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"{tmp_path} holds no bundle"):
        load(tmp_path)


def test_a_version_without_a_manifest_is_named(models_copy: Path) -> None:
    (models_copy / "mnist-2d" / "2").mkdir()
    with pytest.raises(BundleError, match=r"mnist-2d/2/manifest\.json cannot be read"):
        load(models_copy)


def test_a_bundle_in_another_ones_directory_is_named(models_copy: Path) -> None:
    shutil.copytree(models_copy / "mnist-2d" / "1", models_copy / "mnist-2d" / "2")
    with pytest.raises(BundleError, match=r"2/manifest\.json is of mnist-2d 1"):
        load(models_copy)


def test_a_models_directory_may_be_one_bundle_whatever_it_is_called(models_copy: Path) -> None:
    bundle = (models_copy / "mnist-2d" / "1").rename(models_copy / "mine")
    (vae,) = load(bundle, "mnist")
    assert (vae.manifest.name, vae.manifest.version) == ("mnist-2d", 1)


def test_a_graph_that_does_not_load_is_named(models_copy: Path) -> None:
    directory = models_copy / "mnist-2d" / "1"
    (directory / "decoder.onnx").write_bytes(b"junk")
    manifest = read_manifest(directory)
    graphs = manifest.graphs
    decoder = graphs.decoder.model_copy(update=describe(directory / "decoder.onnx"))
    write_manifest(directory, manifest.model_copy(update={"graphs": graphs.model_copy(update={"decoder": decoder})}))
    with pytest.raises(BundleError, match=r"mnist-2d/1/decoder\.onnx cannot be loaded"):
        load(models_copy)


def test_graphs_that_are_not_as_the_manifest_says_are_named(models_copy: Path) -> None:
    directory = models_copy / "mnist-2d" / "1"
    manifest = read_manifest(directory)
    image = manifest.image.model_copy(update={"height": 27})
    write_manifest(directory, manifest.model_copy(update={"image": image}))
    with pytest.raises(BundleError, match=r"mnist-2d/1/encoder\.onnx does not run as its manifest says"):
        load(models_copy)


UNSERVED: dict[str, Callable[[Manifest], dict[str, Any]]] = {
    "images of any size": lambda m: {"image": m.image.model_copy(update={"height": None})},
    "spatial latents": lambda m: {"latent": m.latent.model_copy(update={"shape": (2, 7, 7)})},
    "latents of no size": lambda m: {"latent": m.latent.model_copy(update={"shape": (None,)})},
    "KL of other dimensions": lambda m: {"metrics": {"kl_per_dimension": [1.0]}},
    "KL that is no list": lambda m: {"metrics": {"kl_per_dimension": "x"}},
}


@pytest.mark.parametrize("kind", UNSERVED)
def test_what_is_not_served_is_refused_at_start(models_copy: Path, kind: str) -> None:
    directory = models_copy / "mnist-2d" / "1"
    manifest = read_manifest(directory)
    write_manifest(directory, manifest.model_copy(update=UNSERVED[kind](manifest)))
    with pytest.raises(BundleError, match=r"mnist-2d/1/manifest\.json"):
        load(models_copy)


SHAPED = [
    "label_means",
    "aggregate_means",
    "aggregate_cholesky",
    "aggregate_labels",
    "percentiles",
    "score_k",
    "score_quantiles",
]


@pytest.mark.parametrize("name", SHAPED)
def test_arrays_that_do_not_fit_the_latent_are_refused_at_start(models_copy: Path, name: str) -> None:
    directory = models_copy / "mnist-2d" / "1"
    manifest = read_manifest(directory)
    array = np.zeros((10, 7), read_bundle(directory).arrays[name].dtype)
    arrays = manifest.arrays | {name: write_array(directory, name, array)}
    write_manifest(directory, manifest.model_copy(update={"arrays": arrays}))
    with pytest.raises(BundleError, match=rf"mnist-2d/1/{name}\.npy does not have the shape"):
        load(models_copy)


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_auto_falls_back_and_cuda_does_not(models_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalog = load_catalog(models_copy, "mnist-2d", Batcher(), execution_providers=["cuda", "cpu"], threads=1)
    assert catalog.find().execution_provider == "cpu"
    assert "trying the next execution provider" in caplog.text
    with pytest.raises(ExecutionProviderError):
        load_catalog(models_copy, "mnist-2d", Batcher(), execution_providers=["cuda"], threads=1)


def test_the_shipped_bundles_load() -> None:
    assert {vae.manifest.name for vae in load(MODELS, "mnist")} >= {"mnist", "mnist-2d"}
