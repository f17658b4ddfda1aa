"""The remote VAE protocol: diffusers' own functions, unchanged, against a live server."""

import importlib
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from starlette.testclient import TestClient

from app.bundle.files import read_manifest, write_manifest
from tests.conftest import DIGITS, Pixels, load_npy, load_npz, npy, png, pointers
from tests.maps import CELLS, client_of, write_maps

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    remote: Any = importlib.import_module("diffusers.utils.remote_utils")
    VaeImageProcessor: Any = importlib.import_module("diffusers.image_processor").VaeImageProcessor
    VideoProcessor: Any = importlib.import_module("diffusers.video_processor").VideoProcessor

KINDS = [torch.float16, torch.float32, torch.bfloat16]
RAW = {"Content-Type": "tensor/binary"}
DECODE = {"shape": [1, 2], "dtype": "float32", "model": "mnist-2d"}
ENCODE = {"shape": [1, 1, 28, 28], "dtype": "float32", "model": "mnist-2d"}


@pytest.fixture(scope="module")
def decode_url(live: httpx2.Client) -> str:
    return f"{live.base_url}/remote/decode?model=mnist"


@pytest.fixture(scope="module")
def encode_url(live: httpx2.Client) -> str:
    return f"{live.base_url}/remote/encode?model=mnist"


def decoded(live: httpx2.Client, latents: torch.Tensor) -> Pixels:
    """What our own operation makes of them, `[N, H, W]`."""
    headers = {"Content-Type": "application/x-npy"}
    return load_npy(live.post("/decode/npy?model=mnist", content=npy(latents.float().numpy()), headers=headers).content)


def means(live: httpx2.Client, images: NDArray[Any]) -> NDArray[np.float32]:
    headers = {"Content-Type": "application/x-npy"}
    return load_npz(live.post("/encode/npy?model=mnist", content=npy(images), headers=headers).content)["mean"]


def draws(count: int, kind: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, 32, generator=torch.Generator().manual_seed(0)).to(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures(live: httpx2.Client, decode_url: str, kind: torch.dtype) -> None:
    latents = draws(1, kind)
    expected = decoded(live, latents)[0]
    picture = remote.remote_decode(decode_url, latents, do_scaling=False, image_format="png")
    assert (picture.format, picture.mode, picture.size) == ("png", "RGB", (28, 28))
    assert np.array_equal(np.asarray(picture)[..., 0], expected)
    picture = remote.remote_decode(decode_url, latents, scaling_factor=1.0)
    assert picture.format == "jpeg"
    assert np.abs(np.asarray(picture)[..., 0].astype(int) - expected).mean() < 4


def test_several_pictures_are_a_grid(decode_url: str) -> None:
    picture = remote.remote_decode(decode_url, draws(4), do_scaling=False, image_format="png")
    assert picture.size == (56, 56)


def wanting_logits(latents: torch.Tensor) -> dict[str, Any]:
    tensor = {"name": "latent", "shape": latents.shape, "datatype": "FP32", "data": latents.flatten().tolist()}
    return {"inputs": [tensor], "outputs": [{"name": "logits"}]}


@pytest.mark.parametrize("kind", KINDS)
def test_tensors(live: httpx2.Client, decode_url: str, kind: torch.dtype) -> None:
    latents = draws(3, kind)
    expected = decoded(live, latents)
    tensor = remote.remote_decode(decode_url, latents, do_scaling=False, output_type="pt", return_type="pt")
    assert (tensor.dtype, tensor.shape) == (kind, (3, 1, 28, 28))
    (logits,) = live.post("/v2/models/mnist.decoder/infer", json=wanting_logits(latents)).json()["outputs"]
    wanted = 2 * torch.sigmoid(torch.tensor(logits["data"]).reshape(3, 1, 28, 28)) - 1
    torch.testing.assert_close(tensor, wanted.to(kind))
    pixels = remote.remote_decode(
        decode_url, latents, do_scaling=False, output_type="pt", return_type="pt", partial_postprocess=True
    )
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (3, 28, 28, 3))
    assert all(np.array_equal(pixels[..., channel], expected) for channel in range(3))


def test_pictures_that_the_library_makes_of_tensors(live: httpx2.Client, decode_url: str) -> None:
    latents = draws(2)
    expected = decoded(live, latents)
    pictures = remote.remote_decode(
        decode_url, latents, do_scaling=False, output_type="pt", return_type="pil", partial_postprocess=True
    )
    assert [np.array_equal(np.asarray(picture)[..., 1], it) for picture, it in zip(pictures, expected, strict=True)]
    first = remote.remote_decode(
        decode_url, latents, VaeImageProcessor(), do_scaling=False, output_type="pt", return_type="pil"
    )
    assert np.array_equal(np.asarray(first), expected[0])
    videos = remote.remote_decode(decode_url, latents, VideoProcessor(), do_scaling=False, output_type="pil")
    assert len(videos) == 2
    for picture, it in zip(videos, expected, strict=True):
        assert np.array_equal(np.asarray(picture)[..., 2], it)


def test_encoding_a_picture(live: httpx2.Client, encode_url: str, digits: Pixels) -> None:
    latents = remote.remote_encode(encode_url, Image.fromarray(digits[0]))
    assert latents.dtype == torch.float32
    assert np.array_equal(latents.numpy(), means(live, digits[:1]))


@pytest.mark.parametrize("kind", [*KINDS, torch.uint8])
def test_encoding_tensors(live: httpx2.Client, encode_url: str, digits: Pixels, kind: torch.dtype) -> None:
    images = torch.from_numpy(digits[:5].copy())[:, None]
    sent = images if kind == torch.uint8 else (images.float() / 127.5 - 1).to(kind)
    pixels = np.round((sent.float().numpy() + 1) * 127.5).astype(np.uint8) if kind != torch.uint8 else images.numpy()
    latents = remote.remote_encode(encode_url, sent)
    answered = torch.float32 if kind == torch.uint8 else kind
    assert latents.dtype == answered
    assert torch.equal(latents, torch.from_numpy(means(live, pixels[:, 0])).to(answered))


def test_scaling_there_and_back(live: httpx2.Client, encode_url: str, decode_url: str, digits: Pixels) -> None:
    own = means(live, digits[:1])
    wire = remote.remote_encode(encode_url, Image.fromarray(digits[0]), scaling_factor=0.5, shift_factor=0.25)
    assert np.array_equal(wire.numpy(), (own - np.float32(0.25)) * np.float32(0.5))
    back = remote.remote_decode(decode_url, wire, scaling_factor=0.5, shift_factor=0.25, image_format="png")
    assert np.array_equal(np.asarray(back)[..., 0], decoded(live, (wire / 0.5) + 0.25)[0])


def test_errors_are_problem_documents(decode_url: str, encode_url: str) -> None:
    with pytest.raises(RuntimeError, match="latents must be"):
        remote.remote_decode(decode_url, torch.zeros(1, 3), scaling_factor=1.0)
    with pytest.raises(RuntimeError, match="images must be"):
        remote.remote_encode(encode_url, torch.zeros(1, 3, 28, 28))


def test_a_models_own_factors_count_only_with_do_scaling(
    make_client: Callable[..., TestClient], models_copy: Path, digits: Pixels
) -> None:
    directory = models_copy / "mnist-2d" / "1"
    manifest = read_manifest(directory)
    scaled = manifest.latent.model_copy(update={"scaling_factor": 0.5, "shift_factor": 1.0})
    write_manifest(directory, manifest.model_copy(update={"latent": scaled}))
    client = make_client()

    def encode(**query: Any) -> NDArray[np.float32]:
        answer = client.post("/remote/encode", params=query, content=png(digits[0]))
        assert json.loads(answer.headers["shape"]) == [1, 2]
        return np.frombuffer(answer.content, "<f4")

    def picture(latents: NDArray[np.float32], **query: Any) -> bytes:
        wanted = {"shape": [1, 2], "dtype": "float32", "image_format": "png"} | query
        return bytes(client.post("/remote/decode", params=wanted, content=latents.tobytes(), headers=RAW).content)

    mean = encode()
    assert np.array_equal(encode(do_scaling=True), (mean - 1) * np.float32(0.5))
    assert np.array_equal(encode(do_scaling=True, shift_factor=0), mean * np.float32(0.5))
    assert np.array_equal(encode(scaling_factor=2), mean * np.float32(2))
    latents = np.array([0.5, -0.25], np.float32)
    plain = picture(latents)
    assert picture((latents - 1) / 2, do_scaling=True) == plain
    assert picture((latents - 1) / 4, do_scaling="True", scaling_factor=0.25) == plain
    assert picture(latents / 2, scaling_factor=0.5) == plain


def test_factors_of_each_dimension(make_client: Callable[..., TestClient], models_copy: Path, digits: Pixels) -> None:
    directory = models_copy / "mnist-2d" / "1"
    manifest = read_manifest(directory)
    scaled = manifest.latent.model_copy(update={"scaling_factor": (0.5, 4.0), "shift_factor": (1.0, -1.0)})
    write_manifest(directory, manifest.model_copy(update={"latent": scaled}))
    client, given = make_client(), {"shape": [1, 2], "dtype": "float32", "image_format": "png"}
    mean = np.frombuffer(client.post("/remote/encode", content=png(digits[0])).content, "<f4")
    answer = client.post("/remote/encode", params={"do_scaling": True}, content=png(digits[0]))
    wire = np.frombuffer(answer.content, "<f4")
    assert np.array_equal(wire, (mean - np.float32([1, -1])) * np.float32([0.5, 4]))
    shown = client.post("/remote/decode", params=given | {"do_scaling": True}, content=wire.tobytes(), headers=RAW)
    plain = client.post("/remote/decode", params=given, content=mean.tobytes(), headers=RAW)
    assert shown.content == plain.content
    wrong = given | {"do_scaling": True, "shape": [1, 3]}
    assert pointers(client.post("/remote/decode", params=wrong, content=bytes(12), headers=RAW)) == [""]
    assert client.get("/models/mnist-2d").json()["manifest"]["latent"]["scaling_factor"] == [0.5, 4]


def test_factors_of_each_channel_of_a_map(tmp_path: Path) -> None:
    factors = {"scaling_factor": tuple(range(1, CELLS + 1)), "shift_factor": tuple(range(CELLS))}
    write_maps(tmp_path, told=factors)
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    with client_of(tmp_path, default_model="maps") as client:
        plain, scaled = (
            np.frombuffer(client.post("/remote/encode", params=query, content=png(image)).content, "<f4")
            for query in ({}, {"do_scaling": True})
        )
        mean = plain.reshape(1, CELLS, -1)
        shift, scale = (np.arange(first, first + CELLS, dtype=np.float32)[:, None] for first in (0, 1))
        assert np.array_equal(scaled.reshape(mean.shape), (mean - shift) * scale)


def test_pictures_are_read_as_encode_reads_them(client: TestClient, digits: Pixels) -> None:
    big = np.kron(255 - digits[0], np.ones((4, 4), np.uint8))
    answer = client.post("/remote/encode", params={"invert": True}, content=png(big))
    files = {"images": ("x.png", png(big), "image/png")}
    own = client.post("/encode/files", params={"invert": True}, files=files).json()["mean"]
    np.testing.assert_allclose(own[0], np.frombuffer(answer.content, "<f4"), rtol=DIGITS)
    assert answer.headers["content-type"] == "tensor/binary"
    assert (answer.headers["dtype"], answer.headers["x-model"]) == ("float32", "mnist")
    assert "x-total-time" in answer.headers


def test_a_picture_unless_the_library_asks_for_a_tensor(client: TestClient) -> None:
    for accepted, kind in [("*/*", "image/jpeg"), ("image/jpeg", "image/jpeg"), ("tensor/binary", "tensor/binary")]:
        answer = client.post("/remote/decode", params=DECODE, content=bytes(8), headers=RAW | {"Accept": accepted})
        assert answer.headers["content-type"] == kind
    assert Image.open(io.BytesIO(client.post("/remote/decode", params=DECODE, content=bytes(8), headers=RAW).content))


def test_clients_that_name_the_form_of_tensors(client: TestClient, digits: Pixels) -> None:
    """As SD.Next does. There is one form."""
    both = {"input_tensor_type": "binary", "output_tensor_type": "binary"}
    pixels = (digits[0] / 127.5 - 1).astype("<f4").tobytes()
    for path, query, content in (
        ("/remote/decode", DECODE, bytes(8)),
        ("/remote/decode", DECODE | {"output_type": "pt"}, bytes(8)),
        ("/remote/encode", ENCODE, pixels),
        ("/remote/encode", {"model": "mnist-2d"}, png(digits[0])),
    ):
        plain = client.post(path, params=query, content=content, headers=RAW)
        assert plain.status_code == 200
        assert client.post(path, params=query | both, content=content, headers=RAW).content == plain.content
        for name in both:
            answer = client.post(path, params=query | {name: "base64"}, content=content, headers=RAW)
            assert pointers(answer) == [f"/query/{name}"]


@pytest.mark.parametrize(
    ("query", "content", "pointer"),
    [
        ({"shape": None}, bytes(8), "/query/shape"),
        ({"shape": [2]}, bytes(8), "/query/shape"),
        ({"shape": [1, 3]}, bytes(12), ""),
        ({"shape": [1, 1, 2]}, bytes(8), ""),
        ({"shape": [300, 2]}, bytes(2400), ""),
        ({"shape": [2**40, 2]}, bytes(8), ""),
        ({"shape": [1, 0]}, b"", "/query/shape/1"),
        ({"dtype": "uint8"}, bytes(2), "/query/dtype"),
        ({"dtype": "float64"}, bytes(16), "/query/dtype"),
        ({"dtype": "float16"}, bytes(8), ""),
        ({"output_type": "mp4"}, bytes(8), "/query/output_type"),
        ({"image_format": "webp"}, bytes(8), "/query/image_format"),
        ({"scaling_factor": 0}, bytes(8), "/query/scaling_factor"),
        ({"scaling_factor": "nan"}, bytes(8), "/query/scaling_factor"),
        ({"scaling_factor": 1e-50}, np.ones(2, "<f4").tobytes(), "/0"),
        ({"shift_factor": 1e300}, bytes(8), "/0"),
        ({}, np.array([1, np.nan], "<f4").tobytes(), "/0"),
        ({}, b"", ""),
    ],
)
def test_what_is_wrong_with_latents(client: TestClient, query: dict[str, Any], content: bytes, pointer: str) -> None:
    params = {name: value for name, value in (DECODE | query).items() if value is not None}
    assert pointers(client.post("/remote/decode", params=params, content=content, headers=RAW)) == [pointer]


@pytest.mark.parametrize(
    ("query", "content", "pointer"),
    [
        ({"dtype": None}, bytes(3136), "/query"),
        ({"shape": None}, bytes(3136), "/query"),
        ({"shape": None, "dtype": None}, b"nonsense", ""),
        ({"shape": [1, 28, 28]}, bytes(3136), "/query/shape"),
        ({"shape": [257, 1, 28, 28]}, bytes(8), "/query/shape"),
        ({}, bytes(3135), ""),
        ({}, np.full(784, 1.01, "<f4").tobytes(), ""),
        ({}, np.full(784, np.nan, "<f4").tobytes(), ""),
    ],
)
def test_what_is_wrong_with_images(client: TestClient, query: dict[str, Any], content: bytes, pointer: str) -> None:
    params = {name: value for name, value in (ENCODE | query).items() if value is not None}
    assert pointers(client.post("/remote/encode", params=params, content=content)) == [pointer]


@pytest.mark.parametrize(("dtype", "factor"), [("float16", 1e6), ("float32", 1e39), ("bfloat16", 1e38)])
def test_latents_too_large_for_their_type_are_refused(client: TestClient, dtype: str, factor: float) -> None:
    query = ENCODE | {"dtype": dtype, "scaling_factor": factor, "shift_factor": -50.0}
    answer = client.post("/remote/encode", params=query, content=bytes((2 + 2 * (dtype == "float32")) * 784))
    assert pointers(answer) == ["/query/scaling_factor"]


def test_latents_are_sent_as_tensors(client: TestClient) -> None:
    refused = client.post("/remote/decode", params=DECODE, content=bytes(8), headers={"Content-Type": "text/plain"})
    assert refused.status_code == 415
