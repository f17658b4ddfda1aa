"""safetensors bodies: the same as npy, in one file with names."""

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save
from starlette.testclient import TestClient

from app.codecs.npy import NPY
from app.codecs.safetensors import SAFETENSORS
from tests.conftest import Pixels, load_npy, load_npz, npy, pointers

HEADERS = {"Content-Type": SAFETENSORS}


def told(content: bytes) -> dict[str, str]:
    """The metadata."""
    length = int.from_bytes(content[:8], "little")
    metadata: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return metadata


def by_npy(client: TestClient, path: str, array: Any, **query: Any) -> bytes:
    answer = client.post(f"{path}/npy", content=npy(array), headers={"Content-Type": NPY}, params=query)
    assert answer.status_code == 200
    return bytes(answer.content)


def by_safetensors(client: TestClient, path: str, tensors: dict[str, Any], **query: Any) -> Any:
    answer = client.post(f"{path}/safetensors", content=save(tensors), headers=HEADERS, params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == SAFETENSORS
    return answer


def test_encode(client: TestClient, digits: Pixels) -> None:
    query = {"draw": True, "seed": 7, "percentile": True}
    answer = by_safetensors(client, "/encode", {"images": digits[:3]}, **query)
    arrays, expected = load(answer.content), load_npz(by_npy(client, "/encode", digits[:3], **query))
    assert set(arrays) == {"mean", "log_std", "latents", "latent_percentile", "draw_percentile"}
    assert all(np.array_equal(array, expected[name]) for name, array in arrays.items())
    assert told(answer.content) == {"model": "mnist", "version": "2", "seed": "7"}
    assert answer.headers["x-seed"] == "7"


def test_images_may_be_floats(client: TestClient, digits: Pixels) -> None:
    whole = load(by_safetensors(client, "/encode", {"images": digits[:2]}).content)
    floats = (digits[:2, ..., None] / 255).astype(np.float32)
    assert np.array_equal(load(by_safetensors(client, "/encode", {"images": floats}).content)["mean"], whole["mean"])


def test_what_encode_answers_is_decoded(client: TestClient, digits: Pixels) -> None:
    drawn = load(by_safetensors(client, "/encode", {"images": digits[:2]}, draw=True, seed=1).content)
    images = load(by_safetensors(client, "/decode", drawn).content)
    assert np.array_equal(images["images"], load_npy(by_npy(client, "/decode", drawn["latents"])))


def test_reconstruct_and_score(client: TestClient, digits: Pixels) -> None:
    query = {"mode": "draw", "seed": 1}
    again = load(by_safetensors(client, "/reconstruct", {"images": digits[:2]}, **query).content)
    assert np.array_equal(again["images"], load_npy(by_npy(client, "/reconstruct", digits[:2], **query)))
    answer = by_safetensors(client, "/score", {"images": digits[:2]}, seed=1, k=4)
    scores, expected = load(answer.content), load_npz(by_npy(client, "/score", digits[:2], seed=1, k=4))
    assert all(np.array_equal(array, expected[name]) for name, array in scores.items())
    assert told(answer.content) == {"model": "mnist", "version": "2", "k": "4", "binarize": "draw", "seed": "1"}


def test_sample(client: TestClient) -> None:
    query = {"n": 3, "seed": 5}
    answer = client.get("/sample/safetensors", params=query)
    arrays = load(answer.content)
    assert np.array_equal(arrays["images"], load_npy(client.get("/sample/npy", params=query).content))
    assert arrays["latents"].shape == (3, 32)
    assert (
        client.get("/sample/safetensors", params=query, headers={"If-None-Match": answer.headers["etag"]}).status_code
        == 304
    )


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/encode", b"nonsense", 400),
        ("/encode", save({"latents": np.zeros((1, 28, 28), np.uint8)}), 422),
        ("/encode", save({"images": np.zeros((1, 27, 28), np.uint8)}), 422),
        ("/encode", save({"images": np.zeros((257, 28, 28), np.uint8)}), 422),
        ("/encode", save({"images": np.full((1, 28, 28), 1.5, np.float32)}), 422),
        ("/decode", save({"latents": np.zeros((1, 31), np.float32)}), 422),
        ("/decode", save({"latents": np.zeros((1, 32), np.uint8)}), 422),
        ("/decode", save({"latents": np.full((1, 32), np.nan, np.float32)}), 422),
    ],
)
def test_what_is_wrong_is_said(client: TestClient, path: str, content: bytes, status: int) -> None:
    answer = client.post(f"{path}/safetensors", content=content, headers=HEADERS)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    if status == 422:
        assert len(pointers(answer)) == 1


def test_another_type_is_refused(client: TestClient) -> None:
    content = save({"latents": np.zeros((1, 32), np.float32)})
    assert client.post("/decode/safetensors", content=content, headers={"Content-Type": NPY}).status_code == 415
