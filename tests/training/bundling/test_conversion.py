"""Torch modules as ONNX files: what is written computes the same, and what does not is found out."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from app.bundle.files import Bundle, read_bundle
from app.inference.session import Session
from tests.conftest import Pixels
from tests.training.conftest import MORE, TINY, Workshop
from training.bundling import conversion
from training.bundling.conversion import ImageDecoder, ImageEncoder, check_parity, write_graph
from training.errors import ParityError
from training.fit.likelihood import BernoulliLikelihood, DiscretizedLogisticLikelihood, GaussianLikelihood
from training.fit.module import VaeModule
from training.fit.train import load_checkpoint
from training.recipe import Recipe

Modules = tuple[Bundle, nn.Module, nn.Module]


def modules(recipe: Recipe, workshop: Workshop) -> Modules:
    module = VaeModule(recipe, channels=1, size=28)
    which = "best" if recipe.training.early_stopping_epochs else "last"
    module.load_state_dict(load_checkpoint(recipe, workshop.runs, which)["state_dict"])
    module.eval()
    bundle = read_bundle(workshop.bundle(recipe.name))
    return bundle, ImageEncoder(module.encoder), ImageDecoder(module.decoder, module.likelihood)


@pytest.fixture(params=[*TINY, *MORE])
def bundle_and_modules(request: pytest.FixtureRequest, exported: Workshop, exported_more: Workshop) -> Modules:
    workshop = exported if request.param in TINY else exported_more
    return modules(workshop.recipes[request.param], workshop)


@pytest.fixture
def images(digits: Pixels) -> Pixels:
    return digits[:64, None]


def test_a_bundle_agrees_with_the_modules_it_is_made_of(bundle_and_modules: Modules, images: Pixels) -> None:
    check_parity(*bundle_and_modules, images)


@pytest.mark.parametrize("half", [1, 2], ids=["encoder", "decoder"])
def test_other_weights_are_found_out(bundle_and_modules: Modules, images: Pixels, half: int) -> None:
    weight = next(bundle_and_modules[half].parameters())
    with torch.no_grad():
        weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ParityError, match=["`mean`|`log_std`", "`image`|`logits`|`mean`"][half - 1]):
        check_parity(*bundle_and_modules, images)


class Shifted(nn.Module):
    """A decoder whose images and logits are off by as much as one says."""

    def __init__(self, decoder: nn.Module, *, grey: int = 0, logits: float = 0.0, relative: float = 0.0) -> None:
        super().__init__()
        self.decoder, self.grey, self.shift, self.relative = decoder, grey, logits, relative

    def forward(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        image, logits = self.decoder(latent)
        return image + self.grey, logits * (1 + self.relative) + self.shift


@pytest.mark.parametrize("shift", [{"logits": 5e-5}, {"relative": 5e-5}], ids=str)
def test_a_difference_of_rounding_is_borne(exported: Workshop, images: Pixels, shift: dict) -> None:
    bundle, encoder, decoder = modules(exported.recipes["tiny"], exported)
    check_parity(bundle, encoder, Shifted(decoder, **shift), images)


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ({"grey": 2}, "`image` in a batch of 1 differs"),
        ({"logits": 1e-3}, "`logits` in a batch of 1 differs"),
        ({"logits": np.nan}, "`logits` has values that are not finite"),
    ],
    ids=str,
)
def test_a_larger_difference_is_not(exported: Workshop, images: Pixels, shift: dict, words: str) -> None:
    bundle, encoder, decoder = modules(exported.recipes["tiny"], exported)
    with pytest.raises(ParityError, match=words):
        check_parity(bundle, encoder, Shifted(decoder, **shift), images)


def test_an_output_of_another_shape_or_type_is_found_out(exported: Workshop, images: Pixels) -> None:
    bundle, encoder, decoder = modules(exported.recipes["tiny"], exported)

    class Flat(nn.Module):
        def forward(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            image, logits = decoder(latent)
            return image, logits.flatten(1)

    class Double(nn.Module):
        def forward(self, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            image, logits = decoder(latent)
            return image, logits.double()

    for module in (Flat(), Double()):
        with pytest.raises(ParityError, match=r"`logits` is float32 .*its source\'s"):
            check_parity(bundle, encoder, module, images)


def test_the_encoder_scales() -> None:
    encoder = ImageEncoder(nn.Identity())
    assert encoder(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0.0, 0.2, 1.0])


def test_the_decoder_rounds_and_clips() -> None:
    logits = torch.tensor([-1000.0, 0.0, torch.logit(torch.tensor(0.7)).item(), 1000.0])
    image, same = ImageDecoder(nn.Identity(), BernoulliLikelihood())(logits)
    assert image.dtype == torch.uint8
    assert image.tolist() == [0, 128, 178, 255]  # half rounds to even: 127.5 -> 128, 178.5 -> 178
    assert torch.equal(same, logits)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_mean_beyond_black_and_white_is_clipped_in_the_picture_alone(channels: int) -> None:
    """Of either likelihood whose mean knows no bounds."""
    likelihood = GaussianLikelihood(0.1) if channels == 1 else DiscretizedLogisticLikelihood()
    output = torch.zeros(1, channels, 1, 4)
    output[0, 0, 0] = torch.tensor([-3.0, -0.3, 0.3, 1000.0])
    image, mean, log_scale = ImageDecoder(nn.Identity(), likelihood)(output)
    assert image.dtype == torch.uint8
    assert image.flatten().tolist() == [0, 51, 204, 255]
    assert mean.flatten().tolist() == pytest.approx([-2.5, 0.2, 0.8, 1000.5])
    assert log_scale.shape == mean.shape == image.shape


class Sum(nn.Module):
    """Rows of numbers -> their sums."""

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers.sum(dim=1)


def test_a_graph_is_written_with_a_dynamic_batch_and_without_a_word(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_graph(tmp_path / "sum.onnx", Sum(), torch.zeros(2, 3), ["sum"])
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["sum.onnx"]
    session = Session((tmp_path / "sum.onnx").read_bytes(), name="sum")
    for size in (1, 5):
        outputs = session.run({"numbers": np.ones((size, 3), np.float32)})
        assert outputs["sum"].tolist() == [3.0] * size


def test_notes_are_stripped_at_every_depth() -> None:
    node = onnx.helper.make_node("Identity", ["x"], ["y"], doc_string="note")
    entry = node.metadata_props.add()
    entry.key, entry.value = "trace", "/home/somebody"
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1], doc_string="note")
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    body = onnx.helper.make_graph([node], "body", [], [y], doc_string="note")
    branch = onnx.helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    c = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.BOOL, [1])
    model = onnx.helper.make_model(onnx.helper.make_graph([branch], "main", [c, x], [y]), doc_string="note")
    assert model.SerializeToString().count(b"note") == 6
    conversion._strip(model)
    assert b"note" not in model.SerializeToString()
    assert b"somebody" not in model.SerializeToString()
    assert model.graph.node[0].attribute[0].g.node[0].op_type == "Identity"
