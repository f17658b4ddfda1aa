"""`python -m training reduce`: what passes is written and told, what does harm or is not faster is not."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from app.bundle.files import describe, read_bundle, read_manifest, write_manifest
from app.bundle.manifest import Reduced
from app.errors import CommandError
from tests.conftest import MODELS, Pixels
from tests.maps import client_of, write_maps
from tests.training.conftest import Workshop, copy_of
from training.errors import DataError, ReductionRefused
from training.evaluate import evaluate
from training.fit.train import load_checkpoint, run_folder
from training.fit.warm_start import start_from
from training.offline import OfflineGraphs
from training.reducing.options import GraphName, Precision, ReduceOptions
from training.reducing.quality_gate import reason_to_refuse
from training.reducing.reduce import reduce


@pytest.fixture
def workshop(exported: Workshop, exported_more: Workshop, tmp_path: Path) -> Workshop:
    """Copies of tiny bundles, to reduce."""
    both = copy_of(exported, tmp_path)
    shutil.copytree(exported_more.models, both.models, dirs_exist_ok=True)
    return replace(both, recipes=exported.recipes | exported_more.recipes)


def tried(workshop: Workshop, name: str, precision: str, **options: Any) -> tuple[Path, Reduced]:
    chosen = {"bound_nats": 5.0, "bound_psnr": 5.0, "faster": 0.0, "only": None} | options
    return reduce(workshop.bundle(name), ReduceOptions(precision, **chosen), data_dir=workshop.data_dir)


def files(models: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in models.rglob("*") if path.is_file()}


def scale(directory: Path, half: str, factor: float) -> str:
    """Multiply one weight of a graph; returns its name."""
    path = directory / f"{half}.onnx"
    model = onnx.load(path)
    tensor = next(tensor for tensor in model.graph.initializer if len(tensor.dims) > 1)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), tensor.name))
    path.write_bytes(model.SerializeToString())
    manifest = read_manifest(directory)
    graphs = manifest.graphs.model_copy(update={half: getattr(manifest.graphs, half).model_copy(update=describe(path))})
    write_manifest(directory, manifest.model_copy(update={"graphs": graphs}))
    return tensor.name


@pytest.mark.parametrize("name", ["tiny", "tiny-2d", "tiny-iwae", "tiny-early"])
@pytest.mark.parametrize("precision", ["fp16-stored", "fp16"])
def test_half_precision_changes_next_to_nothing(workshop: Workshop, name: str, precision: str) -> None:
    """Of every architecture and likelihood."""
    source = workshop.bundle(name)
    target, reduced = tried(workshop, name, precision, bound_nats=0.1)
    assert target == source.parent / str(int(source.name) + 1)
    assert (reduced.measure, reduced.images, reduced.split) == ("negative_elbo", 100, "test")
    assert 0 <= reduced.mean_change < 0.2
    assert 0 <= reduced.pixel_change <= 8
    assert reduced.size < 0.65 * reduced.size_before
    assert reduced.source == int(source.name)
    assert [path.name for path in target.parent.iterdir() if path.name.startswith(".")] == []


def test_stored_halves_take_the_place_of_the_graphs(workshop: Workshop, digits: Pixels) -> None:
    source = workshop.bundle("tiny")
    target, reduced = tried(workshop, "tiny", "fp16-stored")
    before, after = read_bundle(source), read_bundle(target)
    assert after.manifest.reduced == {"any": reduced}
    assert after.manifest.graphs.encoder.sha256 == reduced.encoder.sha256
    assert sum(map(len, (after.encoder, after.decoder))) == reduced.size
    assert reduced.speed_alone is not None
    old, new = OfflineGraphs(before).encode(digits[:50, None]), OfflineGraphs(after).encode(digits[:50, None])
    assert 0 < np.abs(old.mean - new.mean).max() < 0.02
    assert after.manifest.model_dump(include={"image", "latent", "arrays", "training"}) == before.manifest.model_dump(
        include={"image", "latent", "arrays", "training"}
    )


def test_metrics_of_stored_halves_are_told_to_be_older_until_they_are_measured(
    finished: Workshop, tmp_path: Path
) -> None:
    workshop = copy_of(finished, tmp_path)
    target, _ = tried(workshop, "tiny", "fp16-stored")
    assert "measured through the graphs of version 1" in (target / "README.md").read_text()
    evaluate(target, data_dir=workshop.data_dir, k=3)
    assert "measured through the graphs of version 1" not in (target / "README.md").read_text()
    other, _ = tried(workshop, "tiny", "fp16")
    assert read_manifest(other).metrics == read_manifest(workshop.bundle("tiny")).metrics


def test_graphs_for_cuda_lie_beside_those_for_all_and_a_cpu_takes_these(workshop: Workshop, digits: Pixels) -> None:
    source = workshop.bundle("tiny")
    target, reduced = tried(workshop, "tiny", "fp16")
    before, after = read_bundle(source), read_bundle(target)
    assert (reduced.encoder.file, reduced.decoder.file) == ("encoder.fp16.onnx", "decoder.fp16.onnx")
    assert after.manifest.graphs == before.manifest.graphs
    assert after.graphs_of("cpu") == (before.encoder, before.decoder)
    assert after.graphs_of("cuda") == tuple(
        (target / f"{half}.fp16.onnx").read_bytes() for half in ("encoder", "decoder")
    )
    assert (reduced.measured_on, reduced.speed_alone) == ("cpu", None)
    encoder, decoder = after.graphs_of("cuda")
    halves, exact = OfflineGraphs(replace(after, encoder=encoder, decoder=decoder)), OfflineGraphs(before)
    means = [graphs.encode(digits[:50, None]).mean for graphs in (halves, exact)]
    assert 0 < np.abs(means[0] - means[1]).max() < 0.02
    images = [graphs.decode(means[1]).astype(int) for graphs in (halves, exact)]
    assert np.abs(images[0] - images[1]).max() <= 2
    with client_of(workshop.models, default_model="tiny") as client:
        answers = [
            client.get("/sample/npy", params={"model": "tiny", "version": version, "n": 4, "seed": 1}).content
            for version in (1, 2)
        ]
        assert answers[0] == answers[1]
        told = client.get("/models/tiny").json()["manifest"]["reduced"]
        assert told["cuda"]["change"] == reduced.change


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_without_a_gpu_the_cpu_measures_and_serves(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where ONNX Runtime has the provider, and falls back."""
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    _, reduced = tried(workshop, "tiny", "fp16")
    assert reduced.measured_on == "cpu"
    with client_of(workshop.models, default_model="tiny", execution_provider="auto") as client:
        told = client.get("/models/tiny").json()
        assert (told["version"], told["execution_provider"]) == (2, "cpu")
        assert client.get("/v2/models/tiny.decoder/config").json()["default_model_filename"] == "decoder.onnx"


def test_what_is_served_of_int8_is_near_and_the_same_in_any_batch(workshop: Workshop, digits: Pixels) -> None:
    target, reduced = tried(workshop, "tiny", "int8")
    assert read_manifest(target).reduced == {"cpu": reduced}
    assert read_manifest(target).graphs == read_manifest(workshop.bundle("tiny")).graphs
    encoder, decoder = read_bundle(target).graphs_of("cpu")
    graphs = OfflineGraphs(replace(read_bundle(target), encoder=encoder, decoder=decoder))
    rows = digits[:9, None]
    together, alone = graphs.encode(rows), graphs.encode(rows[4:5])
    assert (together.mean[4] == alone.mean[0]).all()
    assert (graphs.decode(together.mean)[4] == graphs.decode(alone.mean)[0]).all()
    exact = OfflineGraphs(read_bundle(target)).encode(rows)
    assert np.abs(together.mean - exact.mean).max() > 0
    with client_of(workshop.models, default_model="tiny") as client:
        pixels = [client.get(f"/sample/npy?n=4&seed=1&version={version}").content for version in (1, 2)]
        assert pixels[0] != pixels[1]
        served = client.get("/v2/models/tiny.encoder/config").json()
        assert served["default_model_filename"] == "encoder.int8.onnx"
        images = np.stack([np.frombuffer(content[128:], np.uint8).astype(int) for content in pixels])
        assert np.abs(images[0] - images[1]).mean() < 16


def test_both_kinds_of_graphs_can_be_in_one_bundle(workshop: Workshop) -> None:
    tried(workshop, "tiny", "fp16")
    target, _ = reduce(
        workshop.models / "tiny" / "2",
        ReduceOptions("int8", bound_nats=5.0, faster=0.0, only="encoder"),
        data_dir=workshop.data_dir,
    )
    manifest = read_manifest(target)
    assert set(manifest.reduced) == {"cuda", "cpu"}
    assert manifest.reduced["cpu"].decoder.file == "decoder.onnx"
    assert manifest.reduced["cpu"].encoder.file == "encoder.int8.onnx"
    assert "decoder.int8.onnx" not in [path.name for path in target.iterdir()]
    card = (target / "README.md").read_text()
    assert "python -m training reduce models/tiny/1 --precision fp16 --bound-nats 5\n" in card
    assert "python -m training reduce models/tiny/2 --precision int8 --only encoder --bound-nats 5\n" in card


def test_without_a_posterior_it_is_the_reconstructions_that_count(
    workshop: Workshop, tmp_path: Path, digits: Pixels
) -> None:
    _, reduced = tried(workshop, "tiny-ae", "fp16-stored", bound_psnr=0.1)
    assert (reduced.measure, reduced.bound) == ("psnr", 0.1)
    assert abs(reduced.change) < 0.05
    shutil.copytree(MODELS / "digits-ae" / "1", tmp_path / "digits-ae" / "1")
    np.savez(tmp_path / "digits.npz", images=digits)
    options = ReduceOptions("int8", "encoder", images=tmp_path / "digits.npz", bound_psnr=1e-9)
    with pytest.raises(ReductionRefused, match=r"change PSNR by .* dB, and the bound is 1e-09"):
        reduce(tmp_path / "digits-ae" / "1", options, data_dir=tmp_path)


def test_the_card_says_what_was_measured(workshop: Workshop) -> None:
    target, reduced = tried(workshop, "tiny", "fp16")
    card = (target / "README.md").read_text()
    assert "## Smaller weights" in card
    assert f"-ELBO {reduced.change:+.4f} ± {reduced.standard_error:.4f} nats | 5 |" in card
    assert "measured beside the graphs of version 1, on 100 images of `test`" in card
    assert "measured on a CPU" in card


@pytest.mark.parametrize("precision", ["fp16-stored", "fp16", "int8"])
def test_a_change_beyond_the_bound_is_refused_and_writes_nothing(workshop: Workshop, precision: str) -> None:
    before = files(workshop.models)
    with pytest.raises(
        ReductionRefused,
        match=rf"tiny/1: {precision} weights change -ELBO by [+-]\d+\.\d+ ± .* nats an image, and the bound is 1e-09: "
        "nothing is written",
    ):
        tried(workshop, "tiny", precision, bound_nats=1e-9)
    assert files(workshop.models) == before


def test_weights_that_half_precision_does_not_hold_are_refused_by_name(workshop: Workshop) -> None:
    name = scale(workshop.bundle("tiny"), "encoder", 1e7)
    before = files(workshop.models)
    for precision in ("fp16-stored", "fp16"):
        with pytest.raises(ReductionRefused, match=rf"encoder.onnx: `{name}` has weights up to .*ends at 65504"):
            tried(workshop, "tiny", precision)
    assert files(workshop.models) == before


def test_values_that_half_precision_does_not_hold_are_refused(workshop: Workshop) -> None:
    """No weight is too large here, but what one layer gives the next. A CPU alone would compute on in float32."""
    scale(workshop.bundle("tiny"), "decoder", 6e4)
    tried(workshop, "tiny", "fp16-stored", bound_nats=1e9)
    with pytest.raises(ReductionRefused, match=r"with fp16 weights, decoder of tiny 1 failed: .* is not finite"):
        tried(workshop, "tiny", "fp16", bound_nats=1e9)


@pytest.mark.parametrize("precision", ["fp16-stored", "fp16", "int8"])
def test_weights_that_are_not_finite_are_refused(workshop: Workshop, precision: str) -> None:
    scale(workshop.bundle("tiny"), "encoder", np.nan)
    with pytest.raises(ReductionRefused, match="not finite"):
        tried(workshop, "tiny", precision)


def test_int8_that_is_not_faster_is_refused(workshop: Workshop) -> None:
    before = files(workshop.models)
    with pytest.raises(ReductionRefused, match=r"int8 weights are .* times as fast .* and 1000 times was asked for"):
        tried(workshop, "tiny", "int8", faster=1000.0, only="decoder")
    assert files(workshop.models) == before


@pytest.mark.parametrize(
    ("change", "error", "speeds", "is_refused"),
    [
        (0.05, 0.02, (1.5, 1.5), False),
        (-0.05, 0.02, (1.5, 1.5), False),
        (0.05, 0.03, (1.5, 1.5), True),
        (-0.2, 0.0, (1.5, 1.5), True),
        (float("nan"), 0.0, (1.5, 1.5), True),
        (0.05, 0.02, (1.1, 1.5), True),
        (0.05, 0.02, (1.5, 1.1), True),
    ],
)
def test_the_gate(
    workshop: Workshop, change: float, error: float, speeds: tuple[float, float], is_refused: bool
) -> None:
    _, reduced = tried(workshop, "tiny", "int8", only="encoder")
    alone, batched = speeds
    told = {"change": change, "standard_error": error, "bound": 0.1, "speed_alone": alone, "speed_batched": batched}
    assert (reason_to_refuse(reduced.model_copy(update=told), 1.2) is not None) == is_refused


def test_a_reduced_bundle_is_not_reduced_again(workshop: Workshop) -> None:
    stored, _ = tried(workshop, "tiny", "fp16-stored")
    halves, _ = tried(workshop, "tiny", "fp16")
    for source, precision in ((stored, "fp16-stored"), (stored, "fp16"), (stored, "int8"), (halves, "fp16")):
        with pytest.raises(ReductionRefused, match="weights already, made of version 1"):
            reduce(source, ReduceOptions(precision, None, bound_nats=5.0), data_dir=workshop.data_dir)


def test_a_version_that_is_there_is_replaced_on_demand_alone(workshop: Workshop) -> None:
    with pytest.raises(CommandError, match="is there: pass another --version, or --replace"):
        tried(workshop, "tiny", "fp16-stored", version=1)
    target, reduced = tried(workshop, "tiny", "fp16-stored", version=1, replace=True)
    assert target == workshop.bundle("tiny")
    assert read_manifest(target).reduced == {"any": reduced}
    card = (target / "README.md").read_text()
    assert "beside the graphs that they replaced" in card
    assert "reduce models/tiny/1 --precision fp16-stored --bound-nats 5 --version 1 --replace\n" in card
    assert tried(workshop, "tiny-ae", "fp16", version=7)[0].name == "7"


def test_training_starts_from_stored_halves(workshop: Workshop) -> None:
    from tests.training.fit.test_warm_start import fresh

    target, _ = tried(workshop, "tiny", "fp16-stored")
    module = fresh(workshop.recipes["tiny"])
    start_from(target, module)
    expected = load_checkpoint(workshop.recipes["tiny"], workshop.runs, "last")["state_dict"]
    for name, weight in module.state_dict().items():
        assert np.allclose(weight.numpy(), expected[name].numpy(), rtol=1e-3, atol=1e-4), name
    assert run_folder(workshop.runs, workshop.recipes["tiny"]).exists()


def test_images_of_ones_own_for_a_bundle_without_a_data_set(tmp_path: Path) -> None:
    """Of colour, any size and latents that are maps, with a card that was not made of the manifest."""
    directory = write_maps(tmp_path / "models", scores=True)
    (directory / "README.md").write_text("# maps\n\nFrom elsewhere.\n")
    pictures = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), np.uint8)
    np.savez(tmp_path / "noise.npz", images=pictures)
    options = ReduceOptions("fp16", None, images=tmp_path / "noise.npz", count=10, bound_nats=1e4)
    with pytest.raises(ReductionRefused, match=r"no recipe\.toml that names its data set: pass --images"):
        reduce(directory, ReduceOptions("fp16", None), data_dir=tmp_path)
    target, reduced = reduce(directory, options, data_dir=tmp_path)
    assert (reduced.split, reduced.images, reduced.measure) == ("noise.npz", 10, "negative_elbo")
    card = (target / "README.md").read_text()
    assert card.startswith("# maps\n\nFrom elsewhere.\n\n## Smaller weights\n")
    again, _ = reduce(target, replace(options, precision="fp16-stored"), data_dir=tmp_path)
    card = (again / "README.md").read_text()
    assert card.count("## Smaller weights") == 1
    assert card.count("noise.npz") == 2
    with client_of(tmp_path / "models") as client:
        assert [model["version"] for model in client.get("/models").json()["models"]] == [1, 2, 3]
    with pytest.raises(ReductionRefused, match="no products between its first and its last"):
        reduce(directory, replace(options, precision="int8"), data_dir=tmp_path)


def test_what_cannot_be_measured_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", images=np.zeros((1, 28, 28), np.uint8))
    with pytest.raises(ReductionRefused, match="at least two"):
        tried(workshop, "tiny", "fp16", images=tmp_path / "one.npz")
    with pytest.raises(CommandError, match="absent"):
        tried(workshop, "tiny", "fp16", images=tmp_path / "none.npz")
    with pytest.raises(DataError):
        reduce(workshop.bundle("tiny-iwae"), ReduceOptions("fp16", None), data_dir=tmp_path)


@pytest.mark.parametrize(("precision", "only"), [("fp16-stored", "encoder"), ("fp16-stored", "decoder")])
def test_stored_halves_are_of_both_graphs(precision: Precision, only: GraphName) -> None:
    with pytest.raises(ReductionRefused, match="--only needs fp16 or int8"):
        ReduceOptions(precision, only)


def test_the_default_bundle_keeps_its_figures_in_half_precision(
    workshop: Workshop, tmp_path: Path, digits: Pixels
) -> None:
    shutil.copytree(MODELS / "mnist" / "2", workshop.models / "mnist" / "2")
    np.savez(tmp_path / "digits.npz", images=digits)
    options = ReduceOptions("fp16", None, images=tmp_path / "digits.npz", count=100)
    target, reduced = reduce(workshop.models / "mnist" / "2", options, data_dir=tmp_path)
    assert target.name == "3"
    assert abs(reduced.change) < 0.02
    assert reduced.pixel_change <= 3
