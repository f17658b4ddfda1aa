"""A model's own forward pass is run: what works between its encoder and decoder is found, and named."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.bundle.files import read_manifest
from tests.training.importing import nets
from tests.training.importing.foreign import Imported, never
from training.errors import ImportRefused
from training.importing.checks import forward, reference
from training.importing.options import BundleInfo, ImportOptions, TorchClass
from training.importing.pipeline import import_model
from training.importing.report import figures, warnings
from training.importing.source import Source
from training.importing.sources.torch_class import read_class
from training.importing.sources.torch_forward import find_family, find_forward, find_prior

PATH = "tests.training.importing.nets"
DRAWS = ["randn_like", "randn", "normal_", "normal", "normal of one mean", "normal of a broadcast mean"]
DRAWS += ["normal of a size", "rsample"]
PASSED = ImportOptions(image=(1, 8, 8), posterior="log-variance")


@pytest.fixture(scope="module")
def whole() -> Source:
    """A model with a forward pass, exported once for all of them."""
    torch.manual_seed(6)
    return read_class(TorchClass(f"{PATH}:Whole"), PASSED, never)


def bring_with(source: Source, name: str, folder: Path, *, force: bool = False) -> Imported:
    """Import the exported model with the forward pass of another one, whose halves have the same weights."""
    torch.manual_seed(6)
    model = getattr(nets, name)().eval()
    return bring(replace(source, forward=find_forward(model, torch.zeros(2, 1, 8, 8))), folder, PASSED, force)


def bring(source: Source, folder: Path, passed: ImportOptions, force: bool = False) -> Imported:
    info = BundleInfo(folder / "models" / "mine" / "1", "mine", 1, "A test.", "CC0-1.0", "unknown", "none")
    answers, trip = import_model(source, passed, info, images=None, ask=never, force=force)
    return Imported(info.directory, trip, source, answers)


def forward_of(done: Imported) -> str:
    return dict(figures(done.round_trip))["the model's own forward pass"]


@pytest.mark.parametrize("draw", DRAWS)
def test_a_forward_pass_decodes_the_mean_of_what_it_draws(draw: str) -> None:
    torch.manual_seed(6)
    model, images = nets.Whole(draw).eval(), torch.rand(5, 1, 8, 8)
    found = find_forward(model, images)
    assert found is not None
    assert (found.reason, found.family) == ("", None)
    assert found.run is not None
    with torch.no_grad():
        wanted = model.decode(model.encode(images)[0]).numpy()
    np.testing.assert_allclose(found.run(images.numpy())[0], wanted, atol=1e-6)


def test_the_noise_comes_back() -> None:
    model, images = nets.Whole().eval(), torch.rand(5, 1, 8, 8)
    find_forward(model, images)
    assert not torch.equal(model(images)[0], model(images)[0])


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("Whole", ["uniform"], "it draws random numbers that are not normal"),
        ("Failing", [], "it fails: .* missing 1 required positional argument: 'noise'"),
    ],
)
def test_a_forward_pass_that_cannot_be_compared(name: str, arguments: list[str], reason: str) -> None:
    found = find_forward(getattr(nets, name)(*arguments).eval(), torch.rand(5, 1, 8, 8))
    assert found is not None
    assert found.run is None
    assert re.fullmatch(reason, found.reason)


def test_a_model_without_a_forward_pass() -> None:
    assert find_forward(nets.Vae(), torch.rand(5, 1, 8, 8)) is None


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Quantized", "a vector-quantized model"),
        ("Flowing", "a model with a flow posterior"),
        ("Conditional", "a conditional model"),
        ("Hierarchical", "a hierarchical model"),
        ("Whole", None),
        ("Parts", None),
    ],
)
def test_a_family_is_known_by_its_names(name: str, family: str | None) -> None:
    assert find_family(getattr(nets, name)()) == family


def test_a_learned_prior_is_known_by_its_name() -> None:
    assert (find_prior(nets.Mixture()), find_prior(nets.Whole())) == ("prior_means", None)


@pytest.mark.parametrize("name", ["Whole", "Raw", "Likely", "Signed", "Differentiating", "Undefined"])
def test_the_same_images_are_said_to_be(whole: Source, tmp_path: Path, name: str) -> None:
    done = bring_with(whole, name, tmp_path)
    assert forward_of(done) == "the same images"
    assert len(list(warnings(*done[1:]))) == 1  # no images were given
    assert "| the model's own forward pass | the same images |" in (done.directory / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Quantized", ", as in a vector-quantized model, which a bundle cannot represent"),
        ("Flowing", ", as in a model with a flow posterior, which a bundle cannot represent"),
        ("Scaled", ""),
    ],
)
def test_a_step_between_encoder_and_decoder_is_refused(whole: Source, tmp_path: Path, name: str, family: str) -> None:
    message = rf"by up to [0-9.]+ gray levels: it computes more than these two{family}\. If a method"
    with pytest.raises(ImportRefused, match=message):
        bring_with(whole, name, tmp_path)
    assert not (tmp_path / "models").exists()


def test_force_brings_it_with_a_warning(whole: Source, tmp_path: Path) -> None:
    done = bring_with(whole, "Quantized", tmp_path, force=True)
    (first, *_) = warnings(*done[1:])
    assert first.endswith("gray levels; its parts are those of a vector-quantized model")
    assert f"Warning: {first}." in (done.directory / "README.md").read_text()


def test_a_forward_pass_without_images_is_warned_of(whole: Source, tmp_path: Path) -> None:
    done = bring_with(whole, "Encoding", tmp_path)
    assert next(warnings(*done[1:])).endswith("not compared: it returns no images")


def test_a_loss_for_each_image_is_no_image(whole: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "MAX_IMAGES", 5)  # not as many as an image has columns
    assert forward_of(bring_with(whole, "Scoring", tmp_path)) == "the same images"


def test_a_forward_pass_that_fails_for_some_images_is_warned_of(whole: Source, tmp_path: Path) -> None:
    done = bring_with(whole, "Strict", tmp_path)
    assert next(warnings(*done[1:])).endswith("not compared: it fails: all black, please")


def test_a_forward_pass_is_run_in_portions_without_gradients(
    whole: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "MAX_VALUES_PER_RUN", 3 * 64)
    runs: list[tuple[int, bool]] = []

    class Watched(nets.Whole):
        def forward(self, x: torch.Tensor) -> object:
            decoded, *_ = super().forward(x)
            runs.append((len(x), decoded.requires_grad))
            return decoded

    monkeypatch.setattr(nets, "Watched", Watched, raising=False)
    assert forward_of(bring_with(whole, "Watched", tmp_path)) == "the same images"
    assert runs[-3:] == [(3, False), (3, False), (2, False)]


def test_a_learned_prior_is_none_of_a_bundles(tmp_path: Path) -> None:
    source = read_class(TorchClass(f"{PATH}:Mixture"), PASSED, never)
    done = bring(source, tmp_path, PASSED)
    assert read_manifest(done.directory).latent.prior is None
    assert next(warnings(*done[1:])) == "the model has a learned prior (`prior_means`), which a bundle cannot hold"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Conditional", "`encode` takes `x`, `y`, as in a conditional model, which a bundle cannot represent"),
        ("Hierarchical", "`decode` takes `z`, `coarse`, as in a conditional or hierarchical model"),
        ("Pyramid", "a bundle cannot represent a hierarchical model, which has latents of several sizes"),
    ],
)
def test_halves_that_take_more_are_named(name: str, message: str) -> None:
    with pytest.raises(ImportRefused, match=message):
        read_class(TorchClass(f"{PATH}:{name}"), PASSED, never)
