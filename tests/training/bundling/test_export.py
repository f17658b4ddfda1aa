"""From a checkpoint to a bundle: it computes what was trained, keeps the contract, and appears whole or not at all."""

import json
import tomllib
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from app.bundle.files import Bundle, read_bundle, read_manifest
from app.bundle.manifest import Manifest
from app.inference.session import Session
from tests.conftest import MODELS, ROOT, Pixels, png
from tests.training.conftest import MORE, TINY, Workshop, copy_of, tiny_recipe
from training.bundling import conversion
from training.bundling.export import describe, export, label_means, to_toml
from training.bundling.parity import Tolerance, check_graph
from training.bundling.record import read_log
from training.data import Split, load_dataset
from training.errors import DataError, ParityError, RecipeError
from training.fit.likelihood import mean_image
from training.fit.module import VaeModule
from training.fit.train import load_checkpoint, run_folder, train
from training.offline import OfflineGraphs
from training.recipe import Recipe, load_recipe

FILES = [
    "README.md",
    "aggregate_cholesky.npy",
    "aggregate_labels.npy",
    "aggregate_means.npy",
    "aggregate_weights.npy",
    "decoder.onnx",
    "directions.npy",
    "encoder.onnx",
    "held_out_labels.npy",
    "held_out_means.npy",
    "label_means.npy",
    "manifest.json",
    "mean_norm_quantiles.npy",
    "percentiles.npy",
    "prior_norm_quantiles.npy",
    "recipe.toml",
    "report.json",
    "training.csv",
]


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def workshops(exported: Workshop, exported_more: Workshop) -> dict[str, Workshop]:
    """The workshop of each tiny recipe."""
    return {name: workshop for workshop in (exported, exported_more) for name in workshop.recipes}


def exported_module(workshop: Workshop, name: str) -> VaeModule:
    recipe = workshop.recipes[name]
    which = "best" if recipe.training.early_stopping_epochs else "last"
    module = VaeModule(recipe, channels=1, size=28)
    module.load_state_dict(load_checkpoint(recipe, workshop.runs, which)["state_dict"])
    return module.eval()


# What the graphs compute.


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize("name", [*TINY, *MORE])
def test_the_encoder_computes_what_was_trained(
    workshops: dict[str, Workshop], digits: Pixels, name: str, rows: int
) -> None:
    encoder = Session(read_bundle(workshops[name].bundle(name)).encoder, name="encoder")
    images = digits[-rows:, None]
    outputs = encoder.run({"image": images})
    with torch.no_grad():
        heads = exported_module(workshops[name], name).encoder(torch.from_numpy(images.copy()).float() / 255)
    assert list(outputs) == ["mean", "log_std"][: len(heads)]
    for output, head in zip(outputs.values(), heads, strict=True):
        np.testing.assert_allclose(output, head.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize("name", [*TINY, *MORE])
def test_the_decoder_computes_what_was_trained(workshops: dict[str, Workshop], name: str, rows: int) -> None:
    """The parameters of every likelihood, and the mean as the picture, from black to white."""
    workshop = workshops[name]
    decoder = Session(read_bundle(workshop.bundle(name)).decoder, name="decoder")
    latents = 3 * np.random.default_rng(rows).normal(size=(rows, workshop.recipes[name].latent)).astype(np.float32)
    outputs = decoder.run({"latent": latents})
    module = exported_module(workshop, name)
    with torch.no_grad():
        parameters = module.likelihood.parameters_of(module.decoder(torch.from_numpy(latents)))
        mean = mean_image(parameters).clamp(0, 1).numpy()
    assert list(outputs) == ["image", *parameters]
    for parameter, expected in parameters.items():
        np.testing.assert_allclose(outputs[parameter], expected.numpy(), rtol=1e-4, atol=1e-4)
    assert np.abs(outputs["image"].astype(int) - 255 * mean).max() < 1.01


def test_averaged_weights_are_exported(exported: Workshop, digits: Pixels) -> None:
    recipe, images = exported.recipes["tiny"], digits[:8, None]
    module = VaeModule(recipe, channels=1, size=28)
    module.load_state_dict(load_checkpoint(recipe, exported.runs)["current_model_state"])
    with torch.no_grad():
        unaveraged = module.encoder(torch.from_numpy(images.copy()).float() / 255)[0].numpy()
    mean = OfflineGraphs(read_bundle(exported.bundle("tiny"))).encode(images).mean
    assert np.abs(mean - unaveraged).max() > 1e-3


def test_the_best_epoch_of_a_run_that_stopped_early_is_exported(exported_more: Workshop, digits: Pixels) -> None:
    recipe, directory = exported_more.recipes["tiny-early"], exported_more.bundle("tiny-early")
    log = read_log(directory / "training.csv")
    best = int(np.argmin(log["validation/negative_elbo"]))
    assert best < len(log["epoch"]) - 1
    assert read_manifest(directory).training.epochs == best + 1
    assert f"(epoch {best + 1}: " in (directory / "README.md").read_text()
    module = VaeModule(recipe, channels=1, size=28)
    module.load_state_dict(load_checkpoint(recipe, exported_more.runs)["state_dict"])
    with torch.no_grad():
        last = module.encoder(torch.from_numpy(digits[:8, None].copy()).float() / 255)[0].numpy()
    assert np.abs(OfflineGraphs(read_bundle(directory)).encode(digits[:8, None]).mean - last).max() > 1e-3


def test_a_learned_scale_is_a_pixels(exported_more: Workshop) -> None:
    decoder = Session(read_bundle(exported_more.bundle("tiny-early")).decoder, name="decoder")
    log_scale = decoder.run({"latent": np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)})["log_scale"]
    learned = exported_module(exported_more, "tiny-early").likelihood.log_scale.item()
    assert -4 < learned < -0.5
    assert log_scale.shape == (5, 1, 28, 28)
    np.testing.assert_allclose(log_scale, learned, rtol=1e-6)


# The contract, which shipped bundles keep as well.


SHIPPED = sorted(str(path.parent.relative_to(MODELS)) for path in MODELS.glob("*/*/manifest.json"))


@pytest.fixture(params=[*TINY, *MORE, *SHIPPED])
def bundle(request: pytest.FixtureRequest, workshops: dict[str, Workshop]) -> Bundle:
    name = request.param
    return read_bundle(MODELS / name if name in SHIPPED else workshops[name].bundle(name))


AUTOENCODERS = ("tiny-ae", "digits-ae")
PARAMETERS = {
    "bernoulli": ["logits"],
    "gaussian": ["mean", "log_scale"],
    "discretized_logistic": ["mean", "log_scale"],
}


@pytest.fixture(params=["encoder", "decoder"])
def graph(request: pytest.FixtureRequest, bundle: Bundle) -> tuple[Manifest, str, onnx.ModelProto]:
    return bundle.manifest, request.param, onnx.load_model_from_string(getattr(bundle, request.param))


def tensors(values: Any) -> dict[str, tuple[int, list[int | None]]]:
    """Name, element type and shape; a named size is variable."""
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [None if size.dim_param else size.dim_value for size in value.type.tensor_type.shape.dim],
        )
        for value in values
    }


def test_tensors_are_the_contracts(graph: tuple[Manifest, str, onnx.ModelProto]) -> None:
    manifest, half, model = graph
    shape = [None, 3, 64, 64] if manifest.name == "emoji" else [None, 1, 28, 28]
    image = (onnx.TensorProto.UINT8, shape)
    latent = (onnx.TensorProto.FLOAT, [None, manifest.latent.shape[0]])
    heads = ["mean"] if manifest.name in AUTOENCODERS else ["mean", "log_std"]
    parameters = dict.fromkeys(PARAMETERS[manifest.likelihood], (onnx.TensorProto.FLOAT, shape))
    expected = {
        "encoder": ({"image": image}, dict.fromkeys(heads, latent)),
        "decoder": ({"latent": latent}, {"image": image} | parameters),
    }
    assert (tensors(model.graph.input), tensors(model.graph.output)) == expected[half]


def test_the_manifest_describes_the_tensors(graph: tuple[Manifest, str, onnx.ModelProto]) -> None:
    manifest, half, model = graph
    types = {onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.FLOAT: "float32"}
    described = getattr(manifest.graphs, half)
    for ours, theirs in ((model.graph.input, described.inputs), (model.graph.output, described.outputs)):
        assert {name: (types[kind], tuple(shape)) for name, (kind, shape) in tensors(ours).items()} == {
            name: (tensor.dtype, tensor.shape) for name, tensor in theirs.items()
        }


def test_a_graph_is_plain_onnx_of_one_opset(graph: tuple[Manifest, str, onnx.ModelProto]) -> None:
    model = graph[2]
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", conversion.OPSET)]
    assert not model.functions
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}


def test_a_graph_draws_nothing(graph: tuple[Manifest, str, onnx.ModelProto]) -> None:
    operators = {node.op_type for node in graph[2].graph.node}
    assert operators
    assert not {name for name in operators if name.startswith("Random") or name in ("Bernoulli", "Multinomial")}
    assert "Dropout" not in operators


def test_a_graph_is_one_file(graph: tuple[Manifest, str, onnx.ModelProto]) -> None:
    weights = graph[2].graph.initializer
    assert weights
    assert all(weight.data_location == onnx.TensorProto.DEFAULT for weight in weights)


def test_a_graph_tells_nothing_of_this_machine(graph: tuple[Manifest, str, onnx.ModelProto]) -> None:
    def notes(message: Any) -> list[str]:
        found = []
        for field, value in message.ListFields():
            if field.name in ("metadata_props", "doc_string"):
                found.append(f"{field.full_name}: {value}"[:200])
            elif field.message_type is not None:
                for part in value if field.is_repeated else [value]:
                    found += notes(part)
        return found

    assert notes(graph[2]) == []
    written = graph[2].SerializeToString()
    for trace in (str(ROOT).encode(), b"site-packages", b"/home/", b".py"):
        assert trace not in written


def test_rows_have_the_same_bits_in_every_batch(bundle: Bundle, digits: Pixels) -> None:
    latents = np.random.default_rng(0).normal(size=(64, *bundle.manifest.latent.shape)).astype(np.float32)
    images = images_of(bundle, digits[:64])
    for model, name, rows in ((bundle.encoder, "image", images), (bundle.decoder, "latent", latents)):
        session = Session(model, name=name)
        together = session.run({name: rows})
        for size in (1, 2, 7, 64):
            for output, values in session.run({name: rows[-size:]}).items():
                assert np.array_equal(values, together[output][-size:]), (output, size)


def images_of(bundle: Bundle, digits: Pixels) -> Pixels:
    """Digits, or as many images of noise where a model takes colour, `[N, C, H, W]`."""
    if bundle.manifest.image.channels == 1:
        return digits[:, None]
    return np.random.default_rng(0).integers(0, 256, (len(digits), 3, 64, 64), np.uint8)


def test_only_an_autoencoder_has_no_log_std(bundle: Bundle, digits: Pixels) -> None:
    log_std = OfflineGraphs(bundle).encode(images_of(bundle, digits[:2])).log_std
    assert (log_std is None) == (bundle.manifest.name in AUTOENCODERS)
    assert bundle.manifest.stochastic == (log_std is not None)


def test_the_mixture_is_one(bundle: Bundle) -> None:
    d = bundle.manifest.latent.shape[0]
    weights, means, cholesky, labels = (
        bundle.arrays[f"aggregate_{part}"] for part in ("weights", "means", "cholesky", "labels")
    )
    count = len(weights)
    assert weights.sum() == pytest.approx(1.0, abs=1e-5)
    assert (weights > 0).all()
    assert (means.shape, cholesky.shape, labels.shape) == ((count, d), (count, d, d), (count,))
    assert not np.triu(cholesky, k=1).any()
    assert (np.diagonal(cholesky, axis1=1, axis2=2) > 0).all()
    assert np.isfinite(means).all()
    assert np.isfinite(cholesky).all()
    assert (np.diff(labels) >= 0).all()
    classes = len(bundle.manifest.classes) or 10
    assert set(labels.tolist()) == set(range(classes))
    assert bundle.arrays["label_means"].shape == (classes, d)


def test_classes_are_called_like_the_sub_folders_of_the_pictures(tmp_path: Path, digits: Pixels) -> None:
    for row, pixels in enumerate(digits[:80]):
        file = tmp_path / "sorted" / ("odd", "even")[row % 2] / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(pixels))
    data = {"dataset": "folder", "path": "sorted", "size": 28, "mode": "L", "test_fraction": 0.3}
    recipe = tiny_recipe(tmp_path, "tiny-2d", data=data, training={"epochs": 1})
    runs = tmp_path / "runs"
    train(recipe, data_dir=tmp_path, runs=runs)
    bundle = read_bundle(export(recipe, runs=runs, models=tmp_path / "models", data_dir=tmp_path))
    assert bundle.manifest.classes == ("even", "odd")
    assert len(bundle.arrays["label_means"]) == 2


def test_a_class_that_nothing_can_be_learnt_of_ends_a_training_before_it_begins(tmp_path: Path, digits: Pixels) -> None:
    labels = np.arange(1, 41, dtype=np.uint8) % 3 + 1
    np.savez(tmp_path / "counted.npz", train_images=digits[:40], train_labels=labels)
    data = {"dataset": "npz", "path": "counted.npz"}
    with pytest.raises(DataError, match=r"^counted has no training images of class 0"):
        train(tiny_recipe(tmp_path, "tiny-2d", data=data), data_dir=tmp_path, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


# What is learnt from the training images.


def training_digits(workshop: Workshop, name: str) -> Split:
    return load_dataset(workshop.recipes[name].data, workshop.data_dir).train


@pytest.mark.parametrize("name", [*TINY, *MORE])
def test_label_means_are_the_means_of_each_labels_posterior_means(workshops: dict[str, Workshop], name: str) -> None:
    bundle, train = read_bundle(workshops[name].bundle(name)), training_digits(workshops[name], name)
    mean = OfflineGraphs(bundle).encode(train.images).mean
    for label in range(10):
        expected = mean[train.labels == label].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(bundle.arrays["label_means"][label], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*TINY, *MORE])
def test_each_label_weighs_its_share_of_the_training_images(workshops: dict[str, Workshop], name: str) -> None:
    """Those that were set aside are not among them."""
    arrays, labels = read_bundle(workshops[name].bundle(name)).arrays, training_digits(workshops[name], name).labels
    shares = np.bincount(labels) / (250 if name == "tiny-early" else 300)
    weights = np.bincount(arrays["aggregate_labels"], arrays["aggregate_weights"])
    np.testing.assert_allclose(weights, shares, atol=1e-6)


def test_the_mixture_is_fitted_to_draws_and_not_to_means(exported: Workshop) -> None:
    bundle, train = read_bundle(exported.bundle("tiny")), training_digits(exported, "tiny")
    posterior = OfflineGraphs(bundle).encode(train.images)
    own = bundle.arrays["aggregate_labels"] == 1
    weights = bundle.arrays["aggregate_weights"][own] / bundle.arrays["aggregate_weights"][own].sum()
    fitted = weights @ bundle.arrays["aggregate_means"][own]
    draws = posterior.draw(exported.recipes["tiny"].seed)[train.labels == 1]
    np.testing.assert_allclose(fitted, draws.mean(axis=0), atol=1e-3)
    assert np.abs(fitted - posterior.mean[train.labels == 1].mean(axis=0)).max() > 1e-2


def test_label_means_of_a_few_rows() -> None:
    means = np.array([[0, 0], [4, 2], [2, 4], [9, 9]], np.float32)
    result = label_means(means, np.array([5, 1, 1, 5], np.uint8))
    assert result.dtype == np.float32
    assert result.tolist() == [[3.0, 3.0], [4.5, 4.5]]


# What is written.


TRAINED_ON = {
    "tiny-2d": ("mnist", "none", "bernoulli"),
    "tiny-ae": ("mnist", "none", "bernoulli"),
    "tiny": ("mnist", "dynamic", "bernoulli"),
    "tiny-iwae": ("npz:tiny.npz", "none", "discretized_logistic"),
    "tiny-early": ("npz:tiny.npz", "none", "gaussian"),
}


@pytest.mark.parametrize("name", TRAINED_ON)
def test_the_manifest_says_where_the_weights_come_from(workshops: dict[str, Workshop], name: str) -> None:
    workshop = workshops[name]
    recipe, manifest = workshop.recipes[name], read_manifest(workshop.bundle(name))
    dataset, binarization, likelihood = TRAINED_ON[name]
    checkpoint = load_checkpoint(recipe, workshop.runs, "best" if name == "tiny-early" else "last")
    assert (manifest.name, manifest.version, manifest.description) == (name, recipe.version, recipe.description)
    assert manifest.latent.model_dump() == {
        "shape": (recipe.latent,),
        "scaling_factor": 1.0,
        "shift_factor": 0.0,
        "margin": 0,
        "tiles": None,
        "stride": None,
        "prior": "standard_normal",
    }
    image = {"channels": 1, "height": 28, "width": 28, "mode": "L", "background": "#000000", "resampling": "lanczos"}
    assert (manifest.image.model_dump(), manifest.classes) == (image, ())
    assert (manifest.likelihood, manifest.license, manifest.metrics) == (likelihood, "Apache-2.0", {})
    assert manifest.stochastic == recipe.stochastic
    assert manifest.training.model_dump() == {
        "dataset": dataset,
        "binarization": binarization,
        "recipe": "recipe.toml",
        "epochs": checkpoint["epoch"] + 1,
        "seed": recipe.seed,
        "commit": checkpoint["commit"],
    }
    age = datetime.now(UTC) - datetime.fromisoformat(manifest.created)
    assert timedelta() <= age < timedelta(hours=1)


def test_a_recipe_that_merely_has_a_shipped_ones_name_is_not_taken_for_it(exported: Workshop, tmp_path: Path) -> None:
    checkpoint = {"epoch": 0, "commit": None}
    for recipe, expected in (
        (load_recipe("mnist"), "training/recipes/mnist.toml"),
        (tiny_recipe(tmp_path, "tiny").model_copy(update={"name": "mnist"}), "recipe.toml"),
    ):
        manifest = describe(exported.bundle("tiny"), recipe, checkpoint, (1, 28, 28), ["image", "logits"])
        assert manifest.training.recipe == expected


@pytest.mark.parametrize("name", [*TINY, *MORE])
def test_a_bundle_holds_these_files_and_nothing_is_left_beside_it(workshops: dict[str, Workshop], name: str) -> None:
    workshop = workshops[name]
    directory = workshop.bundle(name)
    assert sorted(content(directory)) == FILES
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]
    assert load_recipe(str(directory / "recipe.toml")) == workshop.recipes[name]
    log = run_folder(workshop.runs, workshop.recipes[name]) / "training.csv"
    assert (directory / "training.csv").read_bytes() == log.read_bytes()


def test_the_manifest_holds_no_path(exported: Workshop) -> None:
    for name in TINY:
        text = (exported.bundle(name) / "manifest.json").read_text()
        assert json.loads(text)["format"] == 1
        assert "/" not in text.replace(exported.recipes[name].description, "")


def test_a_recipe_in_a_bundle_spells_out_every_default(exported: Workshop) -> None:
    tables = tomllib.loads((exported.bundle("tiny-2d") / "recipe.toml").read_text())
    assert tables["objective"] == {"name": "elbo", "beta": 1.0, "free_bits": 0.0, "kl_warmup_epochs": 0}
    assert tables["likelihood"] == {"name": "grey_cross_entropy"}
    assert tables["training"]["learning_rate"] == 1e-3
    assert tables["training"]["schedule"] == "constant"
    assert tables["training"]["precision"] == "32-true"
    assert tables["data"] == {"dataset": "mnist", "validation": 0}
    assert tables["seed"] == 3
    assert tomllib.loads((exported.bundle("tiny-ae") / "recipe.toml").read_text())["seed"] == 0


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t\"\\'"), max_size=40)
rates = st.floats(0, 1e9, exclude_min=True)
objectives = st.one_of(
    st.builds(dict, name=st.just("elbo"), beta=rates, free_bits=st.floats(0, 10), kl_warmup_epochs=st.integers(0, 2)),
    st.builds(dict, name=st.just("iwae"), k=st.integers(2, 1000)),
    st.just({"name": "autoencoder"}),
)
likelihoods = st.sampled_from(
    [
        {"name": "bernoulli", "binarization": "static"},
        {"name": "gaussian", "scale": "learned"},
        {"name": "gaussian", "scale": 1e-3},
        {"name": "discretized_logistic"},
    ]
)
paths = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp", "Cf", "Cn", "Co"], exclude_characters="/."),
    min_size=1,
)


@given(texts, rates, st.integers(0, 2**31 - 1), st.booleans(), objectives, likelihoods, paths)
@settings(deadline=None)
def test_a_recipe_survives_being_written_as_toml(
    text: str, rate: float, seed: int, contrast: bool, objective: dict[str, Any], likelihood: dict[str, Any], path: str
) -> None:
    values = tomllib.loads(TINY["tiny"])
    values |= {"description": text, "seed": seed, "figures": {"contrast": "x"} if contrast else {}}
    values |= {"objective": objective, "likelihood": likelihood, "data": {"dataset": "npz", "path": path}}
    values["training"] |= {"learning_rate": rate, "start": "tiny/7"}
    recipe = Recipe.model_validate(values)
    assert Recipe.model_validate(tomllib.loads(to_toml(recipe))) == recipe


# When it fails.


def test_a_graph_that_disagrees_leaves_the_old_bundle_and_nothing_else(
    exported: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = copy_of(exported, tmp_path)
    before = content(workshop.models)
    strict = partial(check_graph, tolerance=Tolerance(-1.0, -1))  # even equal numbers differ by more than that
    monkeypatch.setattr(conversion, "check_graph", strict)
    with pytest.raises(ParityError, match="`mean` in a batch of 1 differs"):
        export(workshop.recipes["tiny-ae"], runs=workshop.runs, models=workshop.models, data_dir=workshop.data_dir)
    assert content(workshop.models) == before
    assert [path.name for path in (workshop.models / "tiny-ae").iterdir()] == ["1"]


def test_without_a_checkpoint_there_is_no_bundle(data_dir: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "tiny")
    with pytest.raises(RecipeError, match=r"last\.ckpt is absent: train"):
        export(recipe, runs=tmp_path / "runs", models=tmp_path / "models", data_dir=data_dir)
    assert not (tmp_path / "models").exists()


def test_another_recipes_checkpoint_is_not_exported(trained: Workshop, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "tiny", latent=5)
    with pytest.raises(RecipeError, match="of another recipe"):
        export(recipe, runs=trained.runs, models=tmp_path / "models", data_dir=trained.data_dir)
    assert not (tmp_path / "models").exists()


def test_without_data_there_is_no_bundle(trained: Workshop, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train-images-idx3-ubyte"):
        export(trained.recipes["tiny"], runs=trained.runs, models=tmp_path / "models", data_dir=tmp_path / "data")
    assert not (tmp_path / "models").exists()
