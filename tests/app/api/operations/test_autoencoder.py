"""A small AutoencoderKL of diffusers, for images of any size: the server decodes and encodes as the library does."""

import importlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.bundle.files import describe
from app.codecs.npy import NPY
from tests.conftest import load_npy, load_npz, npy, servers
from tests.maps import write_manifest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    remote: Any = importlib.import_module("diffusers.utils.remote_utils")
    models: Any = importlib.import_module("diffusers.models")

pytestmark = pytest.mark.slow(reason="imports and exports a net of diffusers")

STRIDE, CELLS = 2, 4
SCALE, SHIFT = 0.18215, 0.25


class Encoder(nn.Module):
    """Images uint8 `[N, 3, H, W]` -> mean and log_std `[N, 4, H / 2, W / 2]`."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        moments = self.autoencoder.quant_conv(self.autoencoder.encoder(image.float() / 127.5 - 1))
        mean, log_var = moments.chunk(2, dim=1)
        return mean, 0.5 * log_var.clamp(-30, 20)


class Decoder(nn.Module):
    """Latents float32 `[N, 4, h, w]` -> images `[N, 3, 2 h, 2 w]`, uint8 and float32 about 0 to 1."""

    def __init__(self, autoencoder: Any) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.autoencoder.decoder(self.autoencoder.post_quant_conv(latent)) / 2 + 0.5
        return (mean * 255).round().clamp(0, 255).to(torch.uint8), mean


@pytest.fixture(scope="module")
def autoencoder() -> Any:
    """With random weights; in training it would follow a prior."""
    torch.manual_seed(0)
    return models.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=CELLS,
        norm_num_groups=4,
    ).eval()


def export(path: Path, module: nn.Module, example: Tensor, outputs: list[str], sides: int) -> None:
    """Write a graph for any number of rows and any sides that are multiples of `sides`."""
    batch, height, width = (torch.export.Dim(name, min=1, max=4096) for name in ("batch", "height", "width"))
    shapes = {0: batch, 2: sides * height, 3: sides * width}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            opset_version=20,
            external_data=False,
            output_names=outputs,
            dynamic_shapes=(shapes,),
            verbose=False,
        )
    assert program is not None
    path.write_bytes(program.model_proto.SerializeToString())


@pytest.fixture(scope="module")
def live(autoencoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A client of a server of it."""
    directory = tmp_path_factory.mktemp("models") / "kl" / "1"
    directory.mkdir(parents=True)
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    images, latents = torch.zeros(2, 3, 24, 32, dtype=torch.uint8), torch.zeros(2, CELLS, 12, 16)
    export(directory / "encoder.onnx", Encoder(autoencoder), images, ["mean", "log_std"], STRIDE)
    export(directory / "decoder.onnx", Decoder(autoencoder), latents, ["image", "mean"], 1)
    image = {"dtype": "uint8", "shape": [None, 3, None, None]}
    latent = {"dtype": "float32", "shape": [None, CELLS, None, None]}
    encoder = describe(directory / "encoder.onnx") | {"inputs": {"image": image}}
    outputs = {"image": image, "mean": image | {"dtype": "float32"}}
    decoder = describe(directory / "decoder.onnx") | {"inputs": {"latent": latent}, "outputs": outputs}
    write_manifest(
        directory,
        image={"channels": 3, "height": None, "width": None, "mode": "RGB"},
        latent={
            "shape": [CELLS, None, None],
            "stride": STRIDE,
            "prior": None,
            "scaling_factor": SCALE,
            "shift_factor": SHIFT,
        },
        graphs={"encoder": encoder | {"outputs": {"mean": latent, "log_std": latent}}, "decoder": decoder},
    )
    with servers() as start:
        yield start(models_dir=directory.parent.parent, log_level="warning")[1]


def latents(height: int, width: int, count: int = 1) -> Tensor:
    return torch.randn(count, CELLS, height, width, generator=torch.Generator().manual_seed(0))


def own(autoencoder: Any, given: Tensor) -> NDArray[np.uint8]:
    """What the library makes of latents `[N, 4, h, w]`: images `[N, H, W, 3]`."""
    with torch.no_grad():
        image = autoencoder.decode(given).sample
    pixels: NDArray[np.uint8] = ((image / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return pixels


def difference(images: NDArray[Any], others: NDArray[Any]) -> int:
    assert images.shape == others.shape
    return int(np.abs(images.astype(int) - others).max())


@pytest.mark.parametrize(("height", "width"), [(16, 16), (11, 30)])
def test_remote_decode_is_the_librarys_decode(live: httpx2.Client, autoencoder: Any, height: int, width: int) -> None:
    given = latents(height, width)
    wire = (given - SHIFT) * SCALE
    options = {"scaling_factor": SCALE, "shift_factor": SHIFT, "image_format": "png"}
    picture = remote.remote_decode(f"{live.base_url}/remote/decode", wire, **options)
    assert difference(np.asarray(picture)[None], own(autoencoder, given)) <= 1


def pack(given: Tensor) -> Tensor:
    """As `FluxPipeline._pack_latents` does."""
    count, channels, height, width = given.shape
    squares = given.view(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(count, (height // 2) * (width // 2), channels * 4)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_tensors_are_the_decoders_own_floats(live: httpx2.Client, autoencoder: Any, kind: torch.dtype) -> None:
    given = 3 * latents(8, 12, 2)
    with torch.no_grad():
        wanted = autoencoder.decode(given.to(kind).float()).sample
    assert wanted.abs().max() > 1  # it is not clipped
    options = {"do_scaling": False, "output_type": "pt", "return_type": "pt"}
    tensor = remote.remote_decode(f"{live.base_url}/remote/decode", given.to(kind), **options)
    assert tensor.dtype == kind
    np.testing.assert_allclose(tensor.float().numpy(), wanted.numpy(), atol=1e-4 if kind == torch.float32 else 2e-3)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (16, 2)])
def test_packed_latents_are_unpacked(live: httpx2.Client, height: int, width: int) -> None:
    given, url = latents(height, width, 2), f"{live.base_url}/remote/decode"
    options = {"scaling_factor": SCALE, "shift_factor": SHIFT, "output_type": "pt", "return_type": "pt"}
    plain, packed = remote.remote_decode(url, given, **options), pack(given).contiguous()
    for above in (0, 2 * STRIDE - 1):  # what is left over of a size is dropped, as the library does
        sides = {"height": height * STRIDE + above, "width": width * STRIDE + above}
        assert torch.equal(remote.remote_decode(url, packed, **sides, **options), plain)
        assert torch.equal(remote.remote_decode(url, given, **sides, **options), plain)
    query = {"shape": packed.shape, "dtype": "float32"}
    headers = {"Content-Type": "tensor/binary"}
    for sides, place in (
        ({}, "/query"),
        ({"height": 8}, "/query"),
        ({"height": 1, "width": 2**16}, "/query/shape"),
        ({"height": 1, "width": "9" * 4200}, "/query/width"),
    ):
        answer = live.post("/remote/decode", params=query | sides, content=packed.numpy().tobytes(), headers=headers)
        assert [error["pointer"] for error in answer.json()["errors"]] == [place]


def test_several_at_once_are_decoded_as_the_library_does(live: httpx2.Client, autoencoder: Any) -> None:
    given = latents(8, 12, 3)
    answer = live.post("/decode/npy", content=npy(given.numpy()), headers={"Content-Type": NPY})
    assert difference(load_npy(answer.content), own(autoencoder, given)) <= 1


def test_images_are_encoded_as_the_library_does(live: httpx2.Client, autoencoder: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 40, 3), np.uint8)
    with torch.no_grad():
        posterior = autoencoder.encode(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1).latent_dist
    arrays = load_npz(live.post("/encode/npy", content=npy(images), headers={"Content-Type": NPY}).content)
    np.testing.assert_allclose(arrays["mean"], posterior.mean.numpy(), atol=1e-4)
    np.testing.assert_allclose(arrays["log_std"], posterior.logvar.numpy() / 2, atol=1e-4)
    sent = (torch.from_numpy(images[:1]).permute(0, 3, 1, 2) / 127.5 - 1).contiguous()  # or it sends freed memory
    wire = remote.remote_encode(f"{live.base_url}/remote/encode", sent, scaling_factor=SCALE, shift_factor=SHIFT)
    np.testing.assert_allclose(wire.numpy(), (posterior.mean[:1].numpy() - SHIFT) * SCALE, atol=1e-4)


def test_what_it_cannot_do_it_says(live: httpx2.Client) -> None:
    answer = live.get("/sample", params={"height": 32, "width": 32})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["detail"] == "this model's latents follow no prior that could be drawn from"
