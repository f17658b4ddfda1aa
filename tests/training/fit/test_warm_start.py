"""Starting from a bundle's weights: all of them, where they belong, or not at all."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from app.bundle.files import describe, read_bundle, write_manifest
from app.errors import BundleError
from tests.conftest import Pixels
from tests.training.conftest import Workshop, copy_of, tiny_recipe
from training.errors import RecipeError
from training.fit.module import VaeModule
from training.fit.train import load_checkpoint, run_folder, train
from training.fit.warm_start import start_from
from training.offline import OfflineGraphs
from training.recipe import Recipe


def fresh(recipe: Recipe) -> VaeModule:
    torch.manual_seed(100)
    return VaeModule(recipe, channels=1, size=28).eval()


def load(module: VaeModule, workshop: Workshop, name: str) -> VaeModule:
    start_from(workshop.bundle(name), module)
    return module


@pytest.fixture
def bundles(request: pytest.FixtureRequest, exported: Workshop, exported_more: Workshop) -> Workshop:
    return exported if request.param in exported.recipes else exported_more


@pytest.mark.parametrize(
    ("bundles", "name"),
    [(name, name) for name in ("tiny", "tiny-2d", "tiny-ae", "tiny-iwae", "tiny-early")],
    indirect=["bundles"],
)
def test_every_tensor_is_the_bundles(bundles: Workshop, name: str) -> None:
    """Of every architecture and likelihood; the scale that a likelihood has learned is not the net's."""
    recipe = bundles.recipes[name]
    best = "best" if recipe.training.early_stopping_epochs else "last"
    expected = load_checkpoint(recipe, bundles.runs, best)["state_dict"]
    before = {tensor: weight.clone() for tensor, weight in fresh(recipe).state_dict().items()}
    state = load(fresh(recipe), bundles, name).state_dict()
    assert state.keys() == expected.keys()
    for tensor, weight in state.items():
        if tensor.startswith("likelihood."):
            assert torch.equal(weight, before[tensor])
        else:
            assert torch.equal(weight, expected[tensor]), tensor
            assert not torch.equal(weight, before[tensor]), tensor


def outputs(module: VaeModule, images: Pixels, latents: np.ndarray[Any, Any]) -> list[torch.Tensor]:
    with torch.no_grad():
        pixels = torch.from_numpy(images.copy()).float() / 255
        return [*module.encoder(pixels), module.decoder(torch.from_numpy(latents))]


def deeper(tmp_path: Path, name: str) -> Recipe:
    recipe = tiny_recipe(tmp_path, name)
    architecture = recipe.architecture.model_copy(update={"depth": 2})
    return recipe.model_copy(update={"architecture": architecture})


@pytest.mark.parametrize(("bundles", "name"), [("tiny", "tiny")], indirect=["bundles"])
def test_a_deeper_net_starts_as_the_same_function(bundles: Workshop, digits: Pixels, tmp_path: Path, name: str) -> None:
    images, latents = digits[:7, None], np.random.default_rng(0).normal(size=(7, bundles.recipes[name].latent))
    latents = latents.astype(np.float32)
    shallow, deep = (
        load(fresh(bundles.recipes[name]), bundles, name),
        load(fresh(deeper(tmp_path, name)), bundles, name),
    )
    assert len(deep.state_dict()) > len(shallow.state_dict())
    for ours, theirs in zip(outputs(deep, images, latents), outputs(shallow, images, latents), strict=True):
        assert torch.equal(ours, theirs)
    posterior = OfflineGraphs(read_bundle(bundles.bundle(name))).encode(images)
    np.testing.assert_allclose(outputs(deep, images, latents)[0].numpy(), posterior.mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "half", "names"),
    [
        ({"latent": 5}, "encoder", ["heads.0.weight", "heads.0.bias", "heads.1.weight", "heads.1.bias"]),
        ({"likelihood": {"name": "discretized_logistic"}}, "decoder", ["body.11.weight", "body.11.bias"]),
        ({"objective": {"name": "autoencoder"}}, "encoder", ["heads.1.weight", "heads.1.bias"]),
    ],
    ids=str,
)
def test_weights_without_a_place_are_named(
    exported: Workshop, tmp_path: Path, changes: dict[str, Any], half: str, names: list[str]
) -> None:
    module = fresh(tiny_recipe(tmp_path, "tiny", **changes))
    before = {tensor: weight.clone() for tensor, weight in getattr(module, half).state_dict().items()}
    with pytest.raises(RecipeError) as caught:
        load(module, exported, "tiny")
    sentence, _, listed = str(caught.value).partition("the recipe's net: ")
    assert sentence == f"{exported.bundle('tiny')}: the {half} has weights that fit no layer of "
    assert sorted(listed.split(", ")) == sorted(names)
    assert all(torch.equal(weight, before[name]) for name, weight in getattr(module, half).state_dict().items())


def test_a_shallower_net_is_refused(exported_more: Workshop, tmp_path: Path) -> None:
    """It would leave weights out, and be another function."""
    recipe = tiny_recipe(tmp_path, "tiny-iwae", architecture={"name": "mlp", "width": 16, "depth": 0})
    with pytest.raises(RecipeError, match=r"the encoder has weights that fit no layer .*: body\.2\.norm\.weight"):
        load(fresh(recipe), exported_more, "tiny-iwae")


def test_graphs_without_names_of_torchs_are_refused(exported: Workshop, tmp_path: Path) -> None:
    """As another exporter writes them: nothing would be copied, and nobody told."""
    workshop = copy_of(exported, tmp_path)
    directory = workshop.bundle("tiny")
    path = directory / "encoder.onnx"
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.replace("encoder.", "onnx::")
    path.write_bytes(model.SerializeToString())
    manifest = read_bundle(exported.bundle("tiny")).manifest
    encoder = manifest.graphs.encoder.model_copy(update=describe(path))
    graphs = manifest.graphs.model_copy(update={"encoder": encoder})
    write_manifest(directory, manifest.model_copy(update={"graphs": graphs}))
    with pytest.raises(RecipeError, match=r"the encoder has weights that fit no layer of the recipe's net: none$"):
        start_from(directory, fresh(exported.recipes["tiny"]))


# In a run.

STARTED = {"objective": {"name": "elbo"}, "training": {"start": "tiny/1", "epochs": 1, "ema_decay": None}}


def test_a_run_starts_from_the_bundle_and_goes_on_from_its_own_checkpoint(exported: Workshop, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "tiny", version=2, **STARTED)
    slow = recipe.model_copy(update={"training": recipe.training.model_copy(update={"learning_rate": 1e-9})})
    options = {"data_dir": exported.data_dir, "runs": tmp_path / "runs"}
    train(slow, models=exported.models, **options)
    state = load_checkpoint(slow, tmp_path / "runs")["state_dict"]
    expected = load_checkpoint(exported.recipes["tiny"], exported.runs)["state_dict"]
    for name, weight in state.items():
        torch.testing.assert_close(weight, expected[name], atol=1e-6, rtol=0)
    # Done, and gone on with where no bundle is.
    train(slow, models=tmp_path / "none", **options)


def test_a_missing_bundle_is_named_and_nothing_is_begun(exported: Workshop, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path, "tiny", version=2, **STARTED)
    with pytest.raises(BundleError, match=r"models/tiny/1/manifest\.json cannot be read"):
        train(recipe, data_dir=exported.data_dir, runs=tmp_path / "runs", models=tmp_path / "models")
    assert not run_folder(tmp_path / "runs", recipe).exists()


def test_a_bundle_that_was_changed_is_refused(exported: Workshop, tmp_path: Path) -> None:
    workshop = copy_of(exported, tmp_path)
    with (workshop.bundle("tiny") / "decoder.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"decoder\.onnx does not have the sha256"):
        load(fresh(workshop.recipes["tiny"]), workshop, "tiny")
