"""Requests of every kind: each operation, some that are wrong, and clients that do not stay for the answer."""

import random
import socket
import struct
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx2
import numpy as np

from app.codecs.npy import write_npy
from bench.serving import digits, png

NPY = "application/x-npy"
MODELS = ("mnist", "mnist-2d")
LATENT = {"mnist": 32, "mnist-2d": 2}
"""Sizes of their latents."""


@dataclass(frozen=True)
class Ask:
    """A request, and the statuses that it may have besides 503."""

    name: str
    method: str
    path: str
    query: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    """What `httpx2.Client.request` takes: json, content, files, headers."""
    statuses: tuple[int, ...] = (200,)

    def send(self, client: httpx2.Client) -> int:
        """The status of the answer, which is read whole."""
        return client.request(self.method, self.path, params=self.query, **self.body).status_code


def _picture() -> str:
    return b64encode(png(_digits(1)[0])).decode()


def _digits(count: int) -> np.ndarray[Any, Any]:
    first = random.randrange(300)
    return digits(400)[first : first + count]


def _arrays(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"content": write_npy(array), "headers": {"Content-Type": NPY}}


def _of_images(name: str, model: str, **query: Any) -> Ask:
    """An operation on images, in one of its three forms."""
    form = random.choice(("", "/files", "/npy"))
    count = random.choice((1, 1, 4, 32))
    if form == "":
        body: dict[str, Any] = {"json": {"images": [_picture() for _ in range(count)]}}
    elif form == "/files":
        body = {"files": [("images", ("digit.png", png(image))) for image in _digits(count)]}
    else:
        body = _arrays(_digits(count))
    return Ask(name, "POST", f"/{name}{form}", {"model": model, **query}, body)


def _decode(model: str) -> Ask:
    latents = np.random.default_rng().normal(size=(random.choice((1, 8, 64)), LATENT[model])).astype(np.float32)
    if random.random() < 0.5:
        return Ask("decode", "POST", "/decode/npy", {"model": model}, _arrays(latents))
    path = random.choice(("/decode", "/decode/image"))
    return Ask("decode", "POST", path, {"model": model}, {"json": {"latents": latents.tolist()}})


def _interpolate(model: str) -> Ask:
    points = [{"image": _picture()}, {"label": 3}, {"latent": [0.0] * LATENT[model]}]
    return Ask("interpolate", "POST", "/interpolate", {"model": model}, {"json": {"points": points, "steps": 6}})


def _combine(model: str) -> Ask:
    terms = [{"weight": 1.0, "image": _picture()}, {"weight": 0.5, "label": 8}]
    return Ask("combine", "POST", "/combine", {"model": model}, {"json": {"terms": terms}})


def _infer(model: str) -> Ask:
    data = np.random.default_rng().normal(size=2 * LATENT[model]).tolist()
    tensor = {"name": "latent", "shape": [2, LATENT[model]], "datatype": "FP32", "data": data}
    return Ask("infer", "POST", f"/v2/models/{model}.decoder/infer", {}, {"json": {"inputs": [tensor]}})


def _remote(model: str) -> Ask:
    latents = np.random.default_rng().normal(size=(2, LATENT[model])).astype("<f4")
    query = {"model": model, "shape": list(latents.shape), "dtype": "float32", "output_type": "pt"}
    return Ask(
        "remote",
        "POST",
        "/remote/decode",
        query,
        {"content": latents.tobytes(), "headers": {"Content-Type": "tensor/binary"}},
    )


def _get(name: str, path: str, **query: Any) -> Callable[[str], Ask]:
    return lambda model: Ask(name, "GET", path, {"model": model, **query})


def _wrong(_: str) -> Ask:
    """A request with a mistake in it."""
    return random.choice(
        (
            Ask(
                "wrong",
                "POST",
                "/encode",
                {},
                {"content": b"{", "headers": {"Content-Type": "application/json"}},
                (400,),
            ),
            Ask("wrong", "POST", "/encode", {}, {"json": {"images": ["bm8gcGljdHVyZQ=="]}}, (422,)),
            Ask("wrong", "POST", "/decode/npy", {}, _arrays(np.zeros((1, 3), np.float32)), (422,)),
            Ask("wrong", "GET", "/sample", {"n": 100_000}, {}, (422,)),
            Ask("wrong", "GET", "/sample", {"model": "nope"}, {}, (404,)),
            Ask("wrong", "DELETE", "/sample", {}, {}, (405,)),
            Ask("wrong", "POST", "/score", {}, {"content": b"x", "headers": {"Content-Type": "text/plain"}}, (415,)),
        )
    )


KINDS: tuple[Callable[[str], Ask], ...] = (
    lambda model: _of_images("encode", model),
    lambda model: _of_images("encode", model, draw=True),
    lambda model: _of_images("reconstruct", model, mode=random.choice(("mean", "draw"))),
    lambda model: _of_images("score", model, k=random.choice((1, 16))),
    _decode,
    _interpolate,
    _combine,
    _infer,
    _remote,
    lambda model: Ask("vary", "POST", "/vary", {"model": model, "n": 4}, {"json": {"images": [_picture()]}}),
    _get("sample", "/sample", n=4),
    _get("sample", "/sample/image", n=16),
    _get("sample", "/sample/npy", n=64),
    _get("sample", "/sample/image", seed=1),
    _get("traverse", "/traverse/image"),
    _get("manifold", "/manifold/image", n=8),
    _get("posteriors", "/posteriors"),
    lambda _: Ask("models", "GET", "/models"),
    lambda _: Ask("live", "GET", "/health/live"),
    lambda _: Ask("metrics", "GET", "/metrics"),
    _wrong,
)


def any_ask() -> Ask:
    """One of them, on some model."""
    return random.choice(KINDS)(random.choice(MODELS))


def leave(host: str, port: int) -> None:
    """Begin a request and go: in its body, before its answer, or in it; half of them with a reset."""
    head = "GET /sample/npy?n=256&model=mnist HTTP/1.1\r\nHost: a\r\n\r\n"
    if random.random() < 0.5:
        head = "POST /encode HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n{"
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(head.encode())
        if head.startswith("GET") and random.random() < 0.5:
            connection.recv(1000)
        if random.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
