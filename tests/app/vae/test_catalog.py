"""Discovery of the models directory, what stops the server at start, and what changes while it runs."""

import asyncio
import gc
import logging
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from app.bundle.directory import find_bundles
from app.bundle.files import Bundle, describe, read_bundle, read_manifest, write_array, write_manifest
from app.bundle.manifest import Manifest
from app.errors import BundleError, BundleRefused, Conflict, ExecutionProviderError, StartupError, UnknownModel
from app.inference.batcher import Batcher, Work
from app.observability.timing import Timing
from app.vae.catalog import Catalog, load_catalog
from app.vae.loading import Loader
from app.vae.vae import Vae
from tests.conftest import MODELS, Pixels, damage, put_bundle
from tests.processes import PATIENCE


def load(models: Path, default: str = "mnist-2d") -> Catalog:
    return load_catalog(models, default, Batcher(), execution_providers=["cpu"])


def test_the_newest_version_answers_unless_another_is_named(models_copy: Path) -> None:
    for version in (2, 10):
        put_bundle(models_copy, version)
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
    put_bundle(models_copy, 1, name="other")
    assert load(models_copy, default="other").default == "other"
    with pytest.raises(StartupError, match="VAE_DEFAULT_MODEL is mnist, but the models are mnist-2d, other"):
        load(models_copy, default="mnist")


def test_only_the_models_that_are_named_are_served(models_copy: Path) -> None:
    put_bundle(models_copy, 1, name="other")
    put_bundle(models_copy, 1, name="third")
    served = load_catalog(models_copy, "other", Batcher(), execution_providers=["cpu"], names=("other", "third"))

    async def change() -> None:
        assert {it.name for it in await served.known()} == {"other", "third"}
        put_bundle(models_copy, 2, name="other")
        put_bundle(models_copy, 2)
        assert (await served.reload()).loaded == [("other", 2)]
        with pytest.raises(UnknownModel):
            await served.load("mnist-2d")

    asyncio.run(change())


def test_a_name_that_the_directory_lacks_is_named(models_copy: Path) -> None:
    for directory in (models_copy, models_copy / "mnist-2d" / "1"):
        with pytest.raises(StartupError, match="VAE_MODELS names nope: not in"):
            load_catalog(directory, "nope", Batcher(), execution_providers=["cpu"], names=["nope"])


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
    catalog = load(bundle, "mnist")
    (vae,) = catalog
    assert (vae.manifest.name, vae.manifest.version) == ("mnist-2d", 1)
    assert states(catalog) == {("mnist-2d", 1): ("ready", "")}
    assert asyncio.run(catalog.reload()).kept == [("mnist-2d", 1)]
    (bundle / "manifest.json").write_text("{")
    reloaded = asyncio.run(catalog.reload())
    assert (reloaded.kept, reloaded.refused) == ([("mnist-2d", 1)], [("mnist-2d", 1)])
    assert catalog.find() is vae
    shutil.rmtree(bundle)
    with pytest.raises(BundleRefused):
        asyncio.run(catalog.reload())
    assert states(catalog) == {("mnist-2d", 1): ("ready", "gone from the models directory")}


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


def test_a_graph_whose_batch_is_fixed_is_named(models_copy: Path) -> None:
    directory = models_copy / "mnist-2d" / "1"
    graph = onnx.load(directory / "encoder.onnx")
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(graph, directory / "encoder.onnx")
    manifest = read_manifest(directory)
    encoder = manifest.graphs.encoder.model_copy(update=describe(directory / "encoder.onnx"))
    graphs = manifest.graphs.model_copy(update={"encoder": encoder})
    write_manifest(directory, manifest.model_copy(update={"graphs": graphs}))
    with pytest.raises(BundleError, match=r"mnist-2d/1/encoder\.onnx failed: it does not run with several rows"):
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


def put_array(directory: Path, name: str, array: Any) -> None:
    """Into a bundle, with the hashes that it takes."""
    manifest = read_manifest(directory)
    arrays = manifest.arrays | {name: write_array(directory, name, array)}
    write_manifest(directory, manifest.model_copy(update={"arrays": arrays}))


OTHER_TYPES = {"score_k": "uint8", "aggregate_labels": "float32", "held_out_labels": "float32", "directions": "int64"}


@pytest.mark.parametrize("name", OTHER_TYPES)
def test_arrays_of_another_type_are_refused_at_start(models_copy: Path, name: str) -> None:
    directory = models_copy / "mnist-2d" / "1"
    put_array(directory, name, read_bundle(directory).arrays[name].astype(OTHER_TYPES[name]))
    with pytest.raises(BundleError, match=rf"mnist-2d/1/{name}\.npy does not have the type (int64|float32)"):
        load(models_copy)


def test_labels_may_be_small(models_copy: Path) -> None:
    directory = models_copy / "mnist-2d" / "1"
    put_array(directory, "held_out_labels", read_bundle(directory).arrays["held_out_labels"].astype(np.uint8))
    assert load(models_copy).find().manifest.version == 1


FLOATS = ["label_means", "aggregate_weights", "aggregate_cholesky", "percentiles", "score_quantiles", "held_out_means"]


@pytest.mark.parametrize("name", FLOATS)
def test_arrays_that_hold_nan_are_refused_at_start(models_copy: Path, name: str) -> None:
    directory = models_copy / "mnist-2d" / "1"
    array = read_bundle(directory).arrays[name].copy()
    array.flat[-1] = np.nan
    put_array(directory, name, array)
    with pytest.raises(BundleError, match=rf"mnist-2d/1/{name}\.npy holds NaN"):
        load(models_copy)


@pytest.mark.parametrize("name", [*SHAPED, "aggregate_weights"])
def test_arrays_without_an_axis_are_refused_at_start(models_copy: Path, name: str) -> None:
    directory = models_copy / "mnist-2d" / "1"
    put_array(directory, name, read_bundle(directory).arrays[name].flat[0])
    with pytest.raises(BundleError, match=r"mnist-2d/1/\w+\.npy does not have the shape"):
        load(models_copy)


def test_whatever_else_a_bundle_raises_is_one_sentence_that_names_it(models_copy: Path) -> None:
    directory = models_copy / "mnist-2d" / "1"
    manifest = read_manifest(directory)
    endless = manifest.latent.model_copy(update={"shape": (10**16,)})  # which memory there is none for
    write_manifest(directory, manifest.model_copy(update={"latent": endless}))
    with pytest.raises(BundleError, match=r"^mnist-2d/1 cannot be served: \w*MemoryError: "):
        load(models_copy)


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_auto_falls_back_and_cuda_does_not(models_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalog = load_catalog(models_copy, "mnist-2d", Batcher(), execution_providers=["cuda", "cpu"])
    assert catalog.find().execution_provider == "cpu"
    assert "trying the next execution provider" in caplog.text
    with pytest.raises(ExecutionProviderError):
        load_catalog(models_copy, "mnist-2d", Batcher(), execution_providers=["cuda"])


def test_the_shipped_bundles_load() -> None:
    assert {vae.manifest.name for vae in load(MODELS, "mnist")} >= {"mnist", "mnist-2d"}


def test_what_is_no_version_is_not_looked_at(models_copy: Path) -> None:
    for name in ("3.part", "1a", "01", "v2", ".4", "\u0663"):
        (models_copy / "mnist-2d" / name).mkdir()
    (models_copy / "mnist-2d" / "7").write_text("a file")
    (models_copy / ".hidden" / "1").mkdir(parents=True)
    assert list(find_bundles(models_copy)) == [("mnist-2d", 1)]
    assert load(models_copy).versions("mnist-2d") == [1]


async def known(catalog: Catalog) -> dict[tuple[str, int], tuple[str, str]]:
    return {(item.name, item.version): (item.state, item.reason) for item in await catalog.known()}


def states(catalog: Catalog) -> dict[tuple[str, int], tuple[str, str]]:
    return asyncio.run(known(catalog))


READY = ("ready", "")


def test_a_new_version_is_loaded_and_answers(models_copy: Path) -> None:
    catalog = load(models_copy)
    put_bundle(models_copy, 2)
    assert states(catalog) == {("mnist-2d", 1): READY, ("mnist-2d", 2): ("unavailable", "not loaded yet")}
    (vae,) = asyncio.run(catalog.load("mnist-2d", 2))
    assert catalog.find() is vae
    assert vae.manifest.version == 2
    assert states(catalog) == {("mnist-2d", 1): READY, ("mnist-2d", 2): READY}


def test_what_is_unchanged_is_kept_and_what_is_changed_is_replaced(models_copy: Path) -> None:
    put_bundle(models_copy, 2)
    catalog = load(models_copy)
    first, second = catalog
    put_bundle(models_copy, 2, like="mnist-2d/2")
    assert asyncio.run(catalog.load("mnist-2d", 1)) == [first]
    vaes = asyncio.run(catalog.load("mnist-2d"))
    assert vaes == list(catalog)
    assert vaes[0] is first
    assert vaes[1] is not second
    assert vaes[1].digest == read_manifest(models_copy / "mnist-2d" / "2").digest


@pytest.mark.parametrize(
    ("name", "version"), [("nope", None), ("mnist-2d", 9), ("../mnist-2d", 1), ("mnist-2d/1", None)]
)
def test_what_the_directory_does_not_hold_is_unknown(models_copy: Path, name: str, version: int | None) -> None:
    shutil.copytree(models_copy / "mnist-2d", models_copy.parent / "mnist-2d")
    catalog = load(models_copy)
    with pytest.raises(UnknownModel):
        asyncio.run(catalog.load(name, version))
    with pytest.raises(UnknownModel):
        asyncio.run(catalog.unload(name, version))
    assert states(catalog) == {("mnist-2d", 1): READY}


def test_a_broken_bundle_is_refused_and_what_answered_before_answers_on(
    models_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    catalog = load(models_copy)
    before = catalog.find()
    put_bundle(models_copy, 1, like="mnist-2d/2")
    damage(put_bundle(models_copy, 2))
    for version in (2, None):  # of several, all or none
        with pytest.raises(BundleRefused) as refused:
            asyncio.run(catalog.load("mnist-2d", version))
        assert str(models_copy) not in str(refused.value)
    assert f"{models_copy}/mnist-2d/2/decoder.onnx does not have the sha256" in caplog.text
    assert list(catalog) == [before]
    assert states(catalog) == {("mnist-2d", 1): READY, ("mnist-2d", 2): ("unavailable", "refused: see the log")}
    put_bundle(models_copy, 2)
    asyncio.run(catalog.load("mnist-2d", 2))
    damage(put_bundle(models_copy, 2, like="mnist-2d/2"))
    assert asyncio.run(catalog.reload()).refused == [("mnist-2d", 2)]
    assert states(catalog)[("mnist-2d", 2)] == ("ready", "broken in the models directory: see the log")


def test_whatever_a_bundle_raises_is_a_refusal(models_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    def make(_: Bundle) -> Vae:
        raise ZeroDivisionError

    catalog = Catalog(list(load(models_copy)), "mnist-2d", Batcher(), models_copy, Loader(make))
    put_bundle(models_copy, 2)
    with pytest.raises(BundleRefused):
        asyncio.run(catalog.load("mnist-2d", 2))
    assert "ZeroDivisionError" in caplog.text
    assert catalog.versions("mnist-2d") == [1]


def test_a_new_version_answers_only_once_it_is_warm(models_copy: Path) -> None:
    warm, batcher = threading.Event(), Batcher()

    def make(bundle: Bundle) -> Vae:
        vae = Vae(bundle, batcher)
        assert warm.wait(PATIENCE)
        return vae

    async def main() -> None:
        catalog = Catalog(list(load(models_copy)), "mnist-2d", batcher, models_copy, Loader(make))
        put_bundle(models_copy, 2)
        loading = asyncio.create_task(catalog.load("mnist-2d", 2))
        async with asyncio.timeout(10):
            while (await known(catalog))[("mnist-2d", 2)] != ("loading", ""):  # noqa: ASYNC110 (loaded in a thread)
                await asyncio.sleep(0.001)
        assert catalog.find().manifest.version == 1
        with pytest.raises(UnknownModel):
            catalog.find("mnist-2d", 2)
        warm.set()
        (vae,) = await loading
        assert catalog.find() is vae

    asyncio.run(main())


def test_changes_come_one_after_another(models_copy: Path) -> None:
    catalog = load(models_copy)
    put_bundle(models_copy, 2)

    async def main() -> None:
        first, second, reloaded, _ = await asyncio.gather(
            catalog.load("mnist-2d", 2), catalog.load("mnist-2d"), catalog.reload(), catalog.unload("mnist-2d", 1)
        )
        assert first == second[1:]  # loaded once
        assert (reloaded.loaded, reloaded.kept) == ([], [("mnist-2d", 1), ("mnist-2d", 2)])
        assert list(catalog) == first

    asyncio.run(main())


def test_an_unloaded_version_finishes_what_it_accepted_and_leaves_memory(models_copy: Path, digits: Pixels) -> None:
    put_bundle(models_copy, 2, like="mnist-2d/2")
    opened = threading.Event()

    def hold(rows: Any) -> dict[str, Any]:
        assert opened.wait(PATIENCE)
        return {"rows": rows}

    async def main() -> None:
        batcher = Batcher(slots=1)
        catalog = load_catalog(models_copy, "mnist-2d", batcher, execution_providers=["cpu"])
        vae = catalog.find("mnist-2d", 2)
        expected = (await vae.encode(digits[:, :, :, None])).mean
        parts = [weakref.ref(part) for part in (vae, vae.graphs.sessions.encoder, vae.graphs.sessions.decoder)]
        holding = asyncio.create_task(batcher.submit(batcher.lane("other", hold), np.zeros(1), Work(Timing())))
        await asyncio.sleep(0)
        encoding = asyncio.create_task(vae.encode(np.repeat(digits[:, :, :, None], 10, axis=0)))
        await asyncio.sleep(0.01)
        assert vae.graphs.queued_rows > 3900  # a lagging event loop gives the slot one batch in advance
        del vae
        assert await catalog.unload("mnist-2d", 2) == [("mnist-2d", 2)]
        assert catalog.find().manifest.version == 1
        with pytest.raises(UnknownModel):
            catalog.find("mnist-2d", 2)
        assert parts[0]() is not None
        opened.set()
        await holding
        assert (await encoding).mean[::10].tobytes() == expected.tobytes()
        del encoding
        gc.collect()
        assert [part() for part in parts] == [None, None, None]
        await batcher.close()

    asyncio.run(main())


def test_thirty_reloads_leave_one_model_in_memory(models_copy: Path, digits: Pixels) -> None:
    catalog, seen = load(models_copy), []

    async def main() -> None:
        for turn in range(30):
            put_bundle(models_copy, 1, like=f"mnist-2d/{1 + turn % 2}")
            await catalog.reload()
            await catalog.find().encode(digits[:3, :, :, None])
            await catalog.find().score(digits[:3, :, :, None], k=2, seed=0, how=None)
            seen.append(weakref.ref(catalog.find().graphs.sessions.decoder))
        gc.collect()
        assert [decoder() is not None for decoder in seen] == [False] * 29 + [True]

    asyncio.run(main())


def test_the_default_model_keeps_one_version(models_copy: Path) -> None:
    put_bundle(models_copy, 2)
    put_bundle(models_copy, 1, name="other")
    catalog = load(models_copy)
    with pytest.raises(Conflict):
        asyncio.run(catalog.unload("mnist-2d"))
    assert asyncio.run(catalog.unload("mnist-2d", 2)) == [("mnist-2d", 2)]
    with pytest.raises(Conflict):
        asyncio.run(catalog.unload("mnist-2d", 1))
    assert asyncio.run(catalog.unload("other")) == [("other", 1)]
    assert asyncio.run(catalog.unload("other")) == []
    assert [vae.manifest.name for vae in catalog] == ["mnist-2d"]


def test_a_reload_takes_in_what_is_new_and_changed_and_takes_out_what_is_gone(models_copy: Path) -> None:
    for version in (2, 3):
        put_bundle(models_copy, version)
    put_bundle(models_copy, 5, name="gone")
    catalog = load(models_copy)
    kept = catalog.find("mnist-2d", 1)
    put_bundle(models_copy, 1, name="new")
    put_bundle(models_copy, 2, like="mnist-2d/2")
    damage(put_bundle(models_copy, 3, like="mnist-2d/2"))
    damage(put_bundle(models_copy, 4))
    shutil.rmtree(models_copy / "gone")
    reloaded = asyncio.run(catalog.reload())
    assert reloaded.loaded == [("mnist-2d", 2), ("new", 1)]
    assert reloaded.unloaded == [("gone", 5)]
    assert reloaded.kept == [("mnist-2d", 1), ("mnist-2d", 3)]
    assert reloaded.refused == [("mnist-2d", 3), ("mnist-2d", 4)]
    assert catalog.find("mnist-2d", 1) is kept
    assert [(vae.manifest.name, vae.manifest.version) for vae in catalog] == sorted(reloaded.loaded + reloaded.kept)
    again = asyncio.run(catalog.reload())
    assert (again.loaded, again.unloaded, again.refused) == ([], [], reloaded.refused)


def test_a_reload_leaves_the_default_model_its_newest_version(models_copy: Path) -> None:
    put_bundle(models_copy, 2)
    put_bundle(models_copy, 1, name="other")
    catalog = load(models_copy)
    (models_copy / "mnist-2d").rename(models_copy.parent / "elsewhere")
    reloaded = asyncio.run(catalog.reload())
    assert (reloaded.kept, reloaded.unloaded) == ([("mnist-2d", 2), ("other", 1)], [("mnist-2d", 1)])
    assert states(catalog)[("mnist-2d", 2)] == ("ready", "gone from the models directory")
    shutil.rmtree(models_copy / "other")
    with pytest.raises(BundleRefused):  # an empty directory is rather one that is not mounted
        asyncio.run(catalog.reload())
    assert [vae.manifest.name for vae in catalog] == ["mnist-2d", "other"]


def test_what_was_unloaded_stays_so_until_it_is_loaded_or_put_there_anew(models_copy: Path) -> None:
    put_bundle(models_copy, 2)
    catalog = load(models_copy)
    asyncio.run(catalog.unload("mnist-2d", 2))
    put_bundle(models_copy, 2, like="mnist-2d/2")
    assert asyncio.run(catalog.reload()).loaded == []
    assert states(catalog)[("mnist-2d", 2)] == ("unavailable", "unloaded")
    asyncio.run(catalog.load("mnist-2d", 2))
    assert asyncio.run(catalog.reload()).kept == [("mnist-2d", 1), ("mnist-2d", 2)]
    asyncio.run(catalog.unload("mnist-2d", 2))
    shutil.rmtree(models_copy / "mnist-2d" / "2")
    asyncio.run(catalog.reload())
    put_bundle(models_copy, 2)
    assert asyncio.run(catalog.reload()).loaded == [("mnist-2d", 2)]


def test_a_bundle_that_is_being_copied_in_is_refused_until_it_is_whole(models_copy: Path) -> None:
    catalog, source = load(models_copy), put_bundle(models_copy.parent, 1, like="mnist-2d/2")
    before, target = catalog.find(), models_copy / "mnist-2d" / "1"
    named = ["manifest.json", *read_manifest(source).files]
    needed = [name for name in named if (source / name).read_bytes() != (target / name).read_bytes()]

    async def main() -> None:
        for name in needed:
            content = (source / name).read_bytes()
            for part in (content[: len(content) // 2], content):
                (target / name).write_bytes(part)
                whole = name == needed[-1] and part is content
                reloaded = await catalog.reload()
                assert (reloaded.refused, reloaded.loaded) == (
                    ([], [("mnist-2d", 1)]) if whole else ([("mnist-2d", 1)], [])
                )
                assert (catalog.find() is before) is not whole

    asyncio.run(main())
    assert catalog.find().digest == read_manifest(target).digest


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_the_execution_provider_chosen_at_start_stays(models_copy: Path) -> None:
    catalog = load_catalog(models_copy, "mnist-2d", Batcher(), execution_providers=["cuda", "cpu"])
    put_bundle(models_copy, 2)
    (vae,) = asyncio.run(catalog.load("mnist-2d", 2))
    assert vae.execution_provider == "cpu"


def test_changes_are_logged(models_copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    put_bundle(models_copy, 2)
    catalog = load(models_copy)
    with caplog.at_level(logging.INFO):
        asyncio.run(catalog.unload("mnist-2d", 2))
        asyncio.run(catalog.load("mnist-2d", 2))
    assert caplog.messages == ["unloaded mnist-2d version 2", "loaded mnist-2d version 2"]
