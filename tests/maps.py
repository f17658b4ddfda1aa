"""Models whose latents are maps, small enough to know the truth about them: the encoder averages blocks of pixels, the
decoder repeats cells.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from starlette.testclient import TestClient

from app.bundle.files import describe
from app.bundle.manifest import MANIFEST, Manifest
from app.main import create_app
from app.settings import Settings
from tests.processes import PATIENT

STRIDE, CELLS = 8, 4
"""Pixels a cell along each side, and channels of a map."""
LOG_STD = -1.0
_TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def write_maps(
    models: Path,
    name: str = "maps",
    *,
    size: tuple[int, int] | None = None,
    channels: int = 3,
    prior: str | None = "standard_normal",
    stochastic: bool = True,
    scores: bool = False,
    smooth: int = 0,
    told: dict[str, Any] | None = None,
) -> Path:
    """Write a bundle of images of one size, or of any; `smooth` is the side of a blur behind the decoder, `told` is
    what the manifest says of the latents besides."""
    directory = models / name / "1"
    directory.mkdir(parents=True)
    sides = size or (None, None)
    cells = [None if side is None else side // STRIDE for side in sides]
    image = {"dtype": "uint8", "shape": [None, channels, *sides]}
    latent = {"dtype": "float32", "shape": [None, CELLS, *cells]}
    heads = ["mean", "log_std"][: 1 + stochastic]
    graphs = {
        "encoder": _write(directory / "encoder.onnx", *_encoder(channels, heads), image, dict.fromkeys(heads, latent)),
        "decoder": _write(
            directory / "decoder.onnx",
            *_decoder(channels, smooth),
            latent,
            {"image": image} | (dict.fromkeys(("mean", "log_scale"), image | {"dtype": "float32"}) if scores else {}),
        ),
    }
    mode = "L" if channels == 1 else "RGB"
    write_manifest(
        directory,
        image={"channels": channels, "height": sides[0], "width": sides[1], "mode": mode},
        latent={"shape": [CELLS, *cells], "stride": STRIDE, "prior": prior} | (told or {}),
        graphs=graphs,
    )
    return directory


def write_manifest(directory: Path, **members: Any) -> None:
    """Write the manifest of version 1 of a model that is named for the directory above."""
    manifest = {
        "name": directory.parent.name,
        "version": 1,
        "description": "A model for tests.",
        "license": "CC0-1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "likelihood": "gaussian",
        "training": {"dataset": "none", "binarization": "none", "recipe": "none", "epochs": 0, "seed": 0},
    }
    (directory / MANIFEST).write_text(Manifest.model_validate(manifest | members).model_dump_json())


def means(images: Pixels) -> Floats:
    """What the encoder gives `[N, CELLS, h, w]` of images `[N, H, W, C]`: averages of blocks, in [0, 1]."""
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // STRIDE, STRIDE, width // STRIDE, STRIDE, channels)
    averages = blocks.mean(axis=(2, 4)).transpose(0, 3, 1, 2) / 255
    return averages[:, [cell % channels for cell in range(CELLS)]].astype(np.float32)


def images_of(latents: Floats, channels: int = 3) -> Pixels:
    """What the decoder gives `[N, H, W, C]` of latents, without a blur: cells repeated."""
    grey = np.round(np.clip(latents[:, :channels] * np.float32(255), 0, 255)).astype(np.uint8)
    return grey.repeat(STRIDE, axis=2).repeat(STRIDE, axis=3).transpose(0, 2, 3, 1)


def are_near(images: Pixels, others: Pixels) -> bool:
    """Whether no grey level differs by more than one: a half may be rounded up here and down there."""
    return images.shape == others.shape and int(np.abs(images.astype(int) - others).max()) <= 1


def maps(answer: dict[str, Any], name: str = "latents") -> Floats:
    """Latents `[N, c, h, w]` of a JSON response, in which each is one flat list."""
    assert all(len(latent) == np.prod(answer["latent_shape"]) for latent in answer[name])
    return np.array(answer[name], np.float32).reshape(-1, *answer["latent_shape"])


@contextmanager
def client_of(models: Path, **settings: Any) -> Iterator[TestClient]:
    """A client of an application on these models."""
    with TestClient(
        create_app(Settings(models_dir=models, **PATIENT | settings)), raise_server_exceptions=False
    ) as client:
        yield client


def _encoder(channels: int, heads: list[str]) -> tuple[dict[str, Any], list[Any]]:
    picked = np.zeros((CELLS, channels, 1, 1), np.float32)
    for cell in range(CELLS):
        picked[cell, cell % channels] = 1 / 255
    weights = {"picked": picked, "zero": np.float32(0), "log_std_of_all": np.float32(LOG_STD)}
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("AveragePool", ["levels"], ["blocks"], kernel_shape=[STRIDE] * 2, strides=[STRIDE] * 2),
        helper.make_node("Conv", ["blocks", "picked"], ["mean"]),
    ]
    if "log_std" in heads:
        nodes += [
            helper.make_node("Mul", ["mean", "zero"], ["zeros"]),
            helper.make_node("Add", ["zeros", "log_std_of_all"], ["log_std"]),
        ]
    return weights, nodes


def _decoder(channels: int, smooth: int) -> tuple[dict[str, Any], list[Any]]:
    repeated = np.zeros((CELLS, channels, STRIDE, STRIDE), np.float32)
    blur = np.zeros((channels, channels, smooth or 1, smooth or 1), np.float32)
    for channel in range(channels):
        repeated[channel, channel] = 1
        blur[channel, channel] = 1 / max(1, smooth) ** 2
    weights = {"repeated": repeated, "blur": blur, "zero": np.float32(0), "white": np.float32(255)}
    padding = [(smooth or 1) // 2] * 4
    nodes = [
        helper.make_node("ConvTranspose", ["latent", "repeated"], ["cells"], strides=[STRIDE] * 2),
        helper.make_node("Conv", ["cells", "blur"], ["mean"], pads=padding),
        helper.make_node("Mul", ["mean", "zero"], ["log_scale"]),
        helper.make_node("Mul", ["mean", "white"], ["levels"]),
        helper.make_node("Clip", ["levels", "zero", "white"], ["bounded"]),
        helper.make_node("Round", ["bounded"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["image"], to=TensorProto.UINT8),
    ]
    return weights, nodes


def _write(
    path: Path, weights: dict[str, Any], nodes: list[Any], row: dict[str, Any], outputs: dict[str, Any]
) -> dict[str, Any]:
    """Write a graph; returns its entry in the manifest."""
    inputs = {"image" if path.stem == "encoder" else "latent": row}
    told = [
        [
            helper.make_tensor_value_info(name, _TYPES[it["dtype"]], [size or "any" + str(at) for at, size in _of(it)])
            for name, it in tensors.items()
        ]
        for tensors in (inputs, outputs)
    ]
    constants = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, path.stem, *told, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return describe(path) | {"inputs": inputs, "outputs": outputs}


def _of(tensor: dict[str, Any]) -> list[tuple[int, int | None]]:
    return list(enumerate(tensor["shape"]))
