"""Directories of diffusers and of Optimum: maps, images of any size, factors; through ONNX Runtime and the manifest."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from app.bundle.files import Bundle, read_bundle
from app.inference.session import Session
from tests.conftest import Pixels
from tests.training.importing.foreign import bring
from training.bundling.conversion import to_model
from training.errors import ImportRefused
from training.importing.report import figures, warnings
from training.importing.sources.optimum import known_options

pytestmark = pytest.mark.slow(reason="exports the nets of diffusers")

KL = {
    "block_out_channels": (4, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "latent_channels": 4,
    "scaling_factor": 0.3,
    "shift_factor": 0.1,
}
TINY = {
    "encoder_block_out_channels": (4, 4),
    "decoder_block_out_channels": (4, 4),
    "num_encoder_blocks": (1, 1),
    "num_decoder_blocks": (1, 1),
}


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    diffusers.logging.set_verbosity_error()
    yield
    diffusers.logging.set_verbosity_warning()


@pytest.fixture(scope="module")
def kl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An AutoencoderKL of random weights, and where it is saved."""
    torch.manual_seed(4)
    model = diffusers.AutoencoderKL(**KL).eval()
    folder = tmp_path_factory.mktemp("kl") / "vae"
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def brought(kl: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same, brought from the directory of a pipeline, whose `vae` it is."""
    return read_bundle(bring([kl[0].parent], tmp_path_factory.mktemp("brought")).directory)


@pytest.fixture(scope="module")
def orange(colours: Pixels) -> Pixels:
    """Two images of 24 x 28 pixels."""
    return np.ascontiguousarray(colours[:2, :, 2:26])


def signed(images: Pixels) -> torch.Tensor:
    return torch.from_numpy(images.astype(np.float32) / np.float32(127.5) - 1)


def check(bundle: Bundle, model: Any, images: Pixels) -> None:
    """Moments and pictures of an AutoencoderKL."""
    with torch.no_grad():
        posterior = model.encode(signed(images)).latent_dist
        decoded = model.decode(posterior.mean).sample
    heads = Session(bundle.encoder, name="encoder").run({"image": images})
    np.testing.assert_allclose(heads["mean"], posterior.mean.numpy(), atol=1e-4)
    np.testing.assert_allclose(heads["log_std"], 0.5 * posterior.logvar.numpy(), atol=1e-4)
    pictures = Session(bundle.decoder, name="decoder").run({"latent": heads["mean"]})
    wanted = np.clip(np.rint((decoded.numpy() + 1) * 127.5), 0, 255)
    assert set(pictures) == {"image", "mean"}
    np.testing.assert_allclose(pictures["mean"] * 2 - 1, decoded.numpy(), atol=1e-4)
    assert np.abs(pictures["image"].astype(int) - wanted).max() <= 1


def test_an_autoencoder_kl_takes_images_of_any_size(brought: Bundle, kl: tuple[Path, Any], orange: Pixels) -> None:
    manifest = brought.manifest
    sizes = {"channels": 3, "height": None, "width": None, "mode": "RGB"}
    assert manifest.image.model_dump() == sizes | {"background": "#000000", "resampling": "lanczos"}
    assert manifest.latent.model_dump(exclude={"tiles"}) == {
        "shape": (4, None, None),
        "stride": 2,
        "prior": None,
        "scaling_factor": 0.3,
        "shift_factor": 0.1,
        "margin": 0,
    }
    tiles = manifest.latent.tiles  # attention looks at the whole image
    assert tiles is not None
    assert (tiles.levels > 1, tiles.bytes_in_one_piece(10**6) > 10**6) == (True, True)
    assert manifest.graphs.encoder.outputs["log_std"].shape == (None, 4, None, None)
    assert manifest.graphs.decoder.outputs["image"].shape == (None, 3, None, None)
    check(brought, kl[1], orange)
    check(brought, kl[1], np.ascontiguousarray(np.tile(orange, (1, 1, 2, 1))[:1]))


def test_one_size_that_is_passed_is_fixed(kl: tuple[Path, Any], tmp_path: Path, orange: Pixels) -> None:
    done = bring([kl[0]], tmp_path, image=(3, 24, 28))
    assert "| (z - 0.1) * 0.3 |" in (done.directory / "README.md").read_text()
    bundle = read_bundle(done.directory)
    assert (bundle.manifest.latent.shape, bundle.manifest.image.width) == ((4, 12, 14), 28)
    check(bundle, kl[1], orange)


def test_an_autoencoder_tiny_is_deterministic(tmp_path: Path, orange: Pixels) -> None:
    torch.manual_seed(5)
    model = diffusers.AutoencoderTiny(**TINY).eval()
    model.save_pretrained(tmp_path / "tiny")
    bundle = read_bundle(bring([tmp_path / "tiny"], tmp_path).directory)
    assert not bundle.manifest.stochastic
    assert (bundle.manifest.latent.shape, bundle.manifest.latent.prior) == ((4, None, None), None)
    with torch.no_grad():
        latents = model.encode(signed(orange)).latents
        decoded = model.decode(latents).sample.numpy()
    heads = Session(bundle.encoder, name="encoder").run({"image": orange})
    np.testing.assert_allclose(heads["mean"], latents.numpy(), atol=1e-4)
    image = Session(bundle.decoder, name="decoder").run({"latent": latents.numpy()})["image"]
    assert np.abs(image - np.clip((decoded + 1) * 127.5, 0, 255)).max() <= 1


ASYMMETRIC = {
    "down_block_out_channels": (4, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "layers_per_down_block": 1,
    "up_block_out_channels": (4, 8),
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_up_block": 1,
    "norm_num_groups": 2,
}
DC = {
    "latent_channels": 4,
    "attention_head_dim": 4,
    "encoder_block_types": ("ResBlock",) * 2,
    "decoder_block_types": ("ResBlock",) * 2,
    "encoder_block_out_channels": (8, 8),
    "decoder_block_out_channels": (8, 8),
    "encoder_layers_per_block": (1, 1),
    "decoder_layers_per_block": (1, 1),
    "encoder_qkv_multiscales": ((), ()),
    "decoder_qkv_multiscales": ((), ()),
}
STATISTICS = {"latents_mean": [0.5, *[0.0] * 15], "latents_std": [2.0, *[4.0] * 15], "scaling_factor": 0.5}


@pytest.mark.parametrize(
    ("kind", "options", "latent"),
    [
        ("AutoencoderKL", KL | {"latent_channels": 16} | STATISTICS, 16),
        ("AsymmetricAutoencoderKL", ASYMMETRIC, 4),
        ("AutoencoderKLFlux2", {k: KL[k] for k in KL if "factor" not in k} | {"latent_channels": 16}, 16),
        ("AutoencoderDC", DC, 4),
    ],
)
def test_other_classes_of_diffusers(
    tmp_path: Path, orange: Pixels, kind: str, options: dict[str, Any], latent: int
) -> None:
    torch.manual_seed(8)
    model = getattr(diffusers, kind)(**options).eval()
    model.save_pretrained(tmp_path / "foreign", variant="fp16")
    done = bring([tmp_path / "foreign"], tmp_path, image=(3, 24, 28))
    bundle = read_bundle(done.directory)
    assert bundle.manifest.latent.shape == (latent, 12, 14)
    assert dict(figures(done.round_trip))["the model's own forward pass"] == "the same images"
    assert any("cells of 2 x 2" in words for words in warnings(*done[1:])) == (kind == "AutoencoderKLFlux2")
    if kind != "AutoencoderDC":
        check(bundle, model, orange)
    if "latents_std" in options:
        assert bundle.manifest.latent.scaling_factor == (0.25, *[0.125] * 15)
        assert bundle.manifest.latent.shift_factor == (0.5, *[0.0] * 15)


class Encoder(nn.Module):
    """As Optimum exports it: the moments themselves."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: torch.Tensor) -> torch.Tensor:
        parameters: torch.Tensor = self.model.encode(sample).latent_dist.parameters
        return parameters


class Decoder(nn.Module):
    """As Optimum exports it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent_sample: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = self.model.decode(latent_sample).sample
        return decoded


def test_optimums_directory(kl: tuple[Path, Any], tmp_path: Path, orange: Pixels) -> None:
    free: Any = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    for half, net, channels, output in (
        ("encoder", Encoder(kl[1]), 3, "latent_parameters"),
        ("decoder", Decoder(kl[1]), 4, "sample"),
    ):
        folder = tmp_path / "optimum" / f"vae_{half}"
        folder.mkdir(parents=True)
        onnx.save_model(to_model(net, torch.zeros(2, channels, 16, 24), [output], free), folder / "model.onnx")
        (folder / "config.json").write_text(json.dumps({"scaling_factor": 0.3, "shift_factor": None}))
    done = bring([tmp_path / "optimum"], tmp_path)
    bundle = read_bundle(done.directory)
    assert (done.answers.is_split, done.answers.posterior, done.answers.clip) == (True, "log-variance", (-30, 20))
    latent = bundle.manifest.latent
    assert (latent.shape, latent.stride, latent.scaling_factor, latent.prior) == ((4, None, None), 2, 0.3, None)
    check(bundle, kl[1], orange)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config.json": b"{"}, r"config\.json cannot be read as JSON"),
        ({"config.json": b"[]"}, r"config\.json does not hold a JSON object"),
        ({"config.json": b'{"_class_name": "UNet2DModel"}'}, "none of the classes AutoencoderKL, Asymmetric"),
        ({"config.json": b'{"_class_name": "AutoencoderKL", "in_channels": 4}'}, "in_channels of neither 1 nor 3"),
        ({"diffusion_pytorch_model.safetensors": b"none"}, "vae cannot be loaded by diffusers"),
        ({"diffusion_pytorch_model.safetensors": None}, r"vae has no safetensors: weights in a pickle \(\.bin\)"),
    ],
    ids=str,
)
def test_a_directory_that_is_wrong(
    kl: tuple[Path, Any], tmp_path: Path, change: dict[str, bytes | None], message: str
) -> None:
    folder = tmp_path / "vae"
    folder.mkdir()
    files = {path.name: path.read_bytes() for path in kl[0].iterdir()}
    for name, content in (files | change).items():
        if content is not None:
            (folder / name).write_bytes(content)
    with pytest.raises(ImportRefused, match=message):
        bring([folder], tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"scaling_factor": "much"}, "a scaling_factor that is neither a number nor a list of numbers"),
        ({"scaling_factor": True}, "a scaling_factor that is neither"),
        ({"latents_mean": [0, "1"]}, "a latents_mean that is neither"),
        ({"latents_std": []}, "a latents_std that is neither"),
        ({"latents_std": [1, 0]}, "a latents_std of zero"),
        ({"latents_std": [1, 2], "scaling_factor": [1, 2, 3]}, "of different lengths"),
    ],
)
def test_a_factor_that_is_no_number(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ImportRefused, match=message):
        known_options(config)


@pytest.mark.parametrize(
    ("config", "scaling", "shift"),
    [
        ({}, None, None),
        ({"scaling_factor": 0.3, "shift_factor": 0.1, "latents_mean": None}, 0.3, 0.1),
        ({"latents_mean": [1, -1], "latents_std": [2, 4]}, (0.5, 0.25), (1, -1)),
        ({"latents_mean": [1, -1], "latents_std": [2, 4], "scaling_factor": 0.5}, (0.25, 0.125), (1, -1)),
        ({"latents_std": 4, "scaling_factor": [2, 4]}, (0.5, 1), None),
    ],
)
def test_factors_of_a_configuration(config: dict[str, Any], scaling: Any, shift: Any) -> None:
    options = known_options(config)
    assert (options.scaling_factor, options.shift_factor) == (scaling, shift)
