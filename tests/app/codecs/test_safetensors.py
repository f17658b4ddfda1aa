"""safetensors: what the library writes is read, and what is not one is refused."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save
from safetensors.torch import save as save_torch

from app.codecs.safetensors import read_safetensors, write_safetensors
from app.errors import BadRequest, InvalidInput


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
def test_arrays_come_back(dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)
    read = read_safetensors(save({"latents": array, "others": np.zeros(2)}), "latents")
    assert read.dtype == array.dtype
    assert np.array_equal(read, array)


def test_bfloat16_becomes_float32() -> None:
    tensor = torch.randn(2, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    read = read_safetensors(save_torch({"latents": tensor}), "latents")
    assert read.dtype == np.float32
    assert np.array_equal(read, tensor.float().numpy())


def test_what_is_written_is_read_by_the_library() -> None:
    mean = np.arange(6, dtype=np.float32).reshape(2, 3).T
    content = write_safetensors({"mean": mean}, {"seed": "7"})
    assert np.array_equal(load(content)["mean"], mean)
    length = int.from_bytes(content[:8], "little")
    assert json.loads(content[8 : 8 + length])["__metadata__"] == {"seed": "7"}


def header(described: Any, data: bytes = b"") -> bytes:
    text = described if isinstance(described, bytes) else json.dumps(described).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: str = "F32", shape: Any = (1, 2), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"latents": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"\xff" * 8,
        header(b"no JSON"),
        header([1, 2]),
        header(entry(), bytes(7)),
        header(entry(), bytes(9)),
        header(entry(shape=(2, 2)), bytes(8)),
        header(entry(shape=(-1, 2)), bytes(8)),
        header(entry(shape=(2**62, 2**62)), bytes(8)),
        header(entry(offsets=(4, 12)), bytes(12)),
        header(entry(offsets=(8, 0)), bytes(8)),
        header(entry(dtype="F31"), bytes(8)),
        header(b'{"a' + b"a" * 70_000 + b'":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'),
        save({"latents": np.zeros((2, 3), np.float32)})[:-1],
    ],
)
def test_what_is_no_such_file_is_refused(content: bytes) -> None:
    with pytest.raises(BadRequest, match="not a safetensors file"):
        read_safetensors(content, "latents")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (save({"latent": np.zeros((1, 2), np.float32)}), "no tensor `latents`"),
        (header({}), "no tensor `latents`"),
        (save({"latents": np.zeros((1, 2), np.int64)}), "must be U8"),
        (save({"latents": np.zeros((0, 2), np.float32)}), "a shape has"),
        (save({"latents": np.zeros((), np.float32)}), "a shape has"),
        (save({"latents": np.zeros((1,) * 9, np.float32)}), "a shape has"),
    ],
)
def test_what_it_must_hold(content: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        read_safetensors(content, "latents")
