"""Every architecture keeps the shapes that it promises, and starts as it says."""

import math

import pytest
import torch
from torch import nn

from tests.training.test_recipe import NAMED
from training.architectures import ArchitectureOptions
from training.architectures.article import ArticleOptions
from training.architectures.mlp import MlpBlock, MlpOptions
from training.architectures.residual import ResidualBlock, ResidualOptions, top_shape
from training.architectures.shape import NetShape
from training.errors import RecipeError
from training.fit.module import VaeModule
from training.recipe import Recipe, load_recipe

OPTIONS = {
    "article": ArticleOptions(name="article"),
    "mlp": MlpOptions(name="mlp", width=16, depth=2),
    "shallow mlp": MlpOptions(name="mlp", width=16, depth=0),
    "residual": ResidualOptions(name="residual", width=4, hidden=16),
    "deep residual": ResidualOptions(name="residual", width=2, depth=3, hidden=5),
    "patches of four": ResidualOptions(name="residual", width=8, max_width=10, stages=1, patch=4, hidden=5),
    "one stage": ResidualOptions(name="residual", width=2, stages=1, hidden=5),
}


def build(options: ArchitectureOptions, **shape: int) -> tuple[nn.Module, nn.Module]:
    return options.build(NetShape(**shape))


@pytest.mark.parametrize("size", [28, 32])
@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_shapes(options: ArchitectureOptions, heads: int, channels: int, size: int) -> None:
    encoder, decoder = build(options, channels=channels, outputs=2 * channels, size=size, latent=7, heads=heads)
    outputs = encoder(torch.rand(3, channels, size, size))
    assert isinstance(outputs, tuple)
    assert [tuple(output.shape) for output in outputs] == [(3, 7)] * heads
    assert decoder(outputs[0]).shape == (3, 2 * channels, size, size)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_every_weight_learns(options: ArchitectureOptions) -> None:
    encoder, decoder = build(options, channels=1, outputs=1, size=28, latent=7, heads=2)
    mean, log_std = encoder(torch.rand(8, 1, 28, 28))
    decoder(mean + log_std).square().sum().backward()
    for half in (encoder, decoder):
        for name, weight in half.named_parameters():
            assert weight.grad is not None, name
            # A residual block starts with its second layer at zero, which keeps the gradient of what is before at zero.
            assert weight.grad.any() or ".first." in name or ".norm." in name, name


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_seed_decides_the_weights(options: ArchitectureOptions) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([w.flatten() for half in build(options, **shape) for w in half.parameters()])

    shape = {"channels": 1, "outputs": 1, "size": 28, "latent": 2, "heads": 2}
    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


BLOCKS = {"residual": (ResidualBlock(4, dropout=0.5), (2, 4, 5, 5)), "mlp": (MlpBlock(6, dropout=0.5), (2, 6))}


@pytest.mark.parametrize(("block", "shape"), BLOCKS.values(), ids=BLOCKS)
def test_a_block_starts_as_the_identity_and_leaves_it_once_it_learns(block: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    assert torch.equal(block(x), x)
    nn.init.ones_(block.second.weight)
    assert block(x).shape == x.shape
    assert not torch.allclose(block(x), x)


def test_dropout_acts_in_the_encoder_and_in_training_alone() -> None:
    options = MlpOptions(name="mlp", width=16, depth=1, dropout=0.5)
    encoder, decoder = build(options, channels=1, outputs=1, size=28, latent=7, heads=1)
    images, latents = torch.rand(3, 1, 28, 28), torch.randn(3, 7)
    assert not torch.equal(encoder(images)[0], encoder(images)[0])
    assert torch.equal(decoder(latents), decoder(latents))
    encoder.eval()
    assert torch.equal(encoder(images)[0], encoder(images)[0])


@pytest.mark.parametrize("name", ["residual"])
def test_a_deeper_net_has_every_tensor_of_a_shallower_one(name: str) -> None:
    """By name and shape, so that it can start from its weights."""
    halves = [
        build(OPTIONS[name].model_copy(update={"depth": depth}), channels=1, outputs=1, size=28, latent=7, heads=2)
        for depth in (1, 2)
    ]
    for shallow, deep in zip(*halves, strict=True):
        shapes = [{tensor: weight.shape for tensor, weight in half.state_dict().items()} for half in (shallow, deep)]
        assert shapes[0].items() < shapes[1].items()


def test_depth_is_the_number_of_blocks_a_stage() -> None:
    encoder, decoder = build(OPTIONS["deep residual"], channels=1, outputs=1, size=28, latent=7, heads=2)
    for half in (encoder, decoder):
        assert sum(isinstance(layer, ResidualBlock) for layer in half.modules()) == 2 * 3


def test_every_stage_halves_the_sides() -> None:
    options = ResidualOptions(name="residual", width=2, stages=5, hidden=5)
    assert top_shape(options, 64) == (32, 2, 2)
    encoder, decoder = build(options, channels=3, outputs=6, size=64, latent=7, heads=2)
    mean, _ = encoder(torch.rand(2, 3, 64, 64))
    assert decoder(mean).shape == (2, 6, 64, 64)


def test_patches_of_four_divide_the_sides_by_four_first_and_channels_end_at_their_maximum() -> None:
    options = ResidualOptions(name="residual", width=8, max_width=12, stages=3, patch=4, hidden=5)
    assert [options.channels(stage) for stage in range(3)] == [8, 12, 12]
    assert top_shape(options, 64) == (12, 4, 4)
    encoder, decoder = build(options, channels=3, outputs=6, size=64, latent=7, heads=2)
    mean, _ = encoder(torch.rand(2, 3, 64, 64))
    assert decoder(mean).shape == (2, 6, 64, 64)


def test_channels_that_cannot_be_shared_out_among_a_patchs_pixels_are_refused() -> None:
    options = ResidualOptions(name="residual", width=12, patch=4)
    with pytest.raises(RecipeError, match=r"architecture.width must be a multiple of 8 with patches of 4"):
        build(options, channels=3, outputs=3, size=64, latent=7, heads=2)


def test_sides_that_cannot_be_halved_so_often_are_refused() -> None:
    values = load_recipe("mnist").model_dump()
    values["architecture"]["stages"] = 3
    with pytest.raises(RecipeError, match=r"architecture.stages = 3 is too many for sides of 28 pixels"):
        VaeModule(Recipe.model_validate(values), channels=1, size=28)


def test_the_articles_weights_start_with_glorots_uniform_distribution() -> None:
    for half in build(OPTIONS["article"], channels=1, outputs=1, size=28, latent=2, heads=2):
        for layer in half.modules():
            if isinstance(layer, nn.Linear):
                assert not layer.bias.any()
                bound = math.sqrt(6 / (layer.in_features + layer.out_features))
                assert layer.weight.abs().max() <= bound
                assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.35)


# Measured; a change of an architecture shows here, and means training again.
PARAMETERS = {
    "mnist": 1_466_000,
    "mnist-iwae": 1_362_000,
    "mnist-2d": 1_197_000,
    "digits-ae": 134_000,
    "emoji": 2_031_000,
    "faces": 5_524_000,
}


@pytest.mark.parametrize("name", NAMED)
def test_a_recipes_net_is_as_large_as_expected(name: str) -> None:
    colour = load_recipe(name).data.dataset in ("emoji", "faces")
    module = VaeModule(load_recipe(name), channels=3 if colour else 1, size=64 if colour else 28)
    count = sum(weight.numel() for weight in module.parameters())
    assert count == pytest.approx(PARAMETERS[name], rel=0.05)
    assert 2 * count < 12e6, "bytes of a bundle's weights, stored as halves"
