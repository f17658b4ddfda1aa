"""Discovery of the models directory, and what stops the server at start."""

import shutil
from pathlib import Path

import pytest

from app.batcher import Batcher
from app.bundle import describe, read_manifest, write_manifest
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


def test_a_graph_that_does_not_load_is_named(models_copy: Path) -> None:
    directory = models_copy / "mnist-2d" / "1"
    (directory / "decoder.onnx").write_bytes(b"junk")
    manifest = read_manifest(directory)
    graphs = manifest.graphs
    decoder = graphs.decoder.model_copy(update=describe(directory / "decoder.onnx"))
    write_manifest(directory, manifest.model_copy(update={"graphs": graphs.model_copy(update={"decoder": decoder})}))
    with pytest.raises(BundleError, match="decoder of mnist-2d 1 cannot be loaded"):
        load(models_copy)


def test_graphs_that_are_not_as_the_manifest_says_are_named(models_copy: Path) -> None:
    directory = models_copy / "mnist-2d" / "1"
    manifest = read_manifest(directory)
    latent = manifest.latent.model_copy(update={"shape": (3,)})
    write_manifest(directory, manifest.model_copy(update={"latent": latent}))
    with pytest.raises(BundleError, match="encoder of mnist-2d 1 gives another `mean`"):
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
