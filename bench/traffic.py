"""Random requests for `bench.soak`: each operation, invalid requests, and clients that disconnect early."""

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
"""Latent size of each model."""


@dataclass(frozen=True)
class Call:
    """A request, and the statuses that it may get besides 503."""

    name: str
    method: str
    path: str
    query: dict[str, Any] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `httpx2.Client.request`: json, content, files, headers."""
    statuses: tuple[int, ...] = (200,)

    def send(self, client: httpx2.Client) -> int:
        """Send the request, read the whole response, and return its status."""
        return client.request(self.method, self.path, params=self.query, **self.body).status_code


def _image() -> str:
    return b64encode(png(_digits(1)[0])).decode()


def _digits(count: int) -> np.ndarray[Any, Any]:
    first = random.randrange(300)
    return digits(400)[first : first + count]


def _arrays(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"content": write_npy(array), "headers": {"Content-Type": NPY}}


def _with_images(name: str, model: str, **query: Any) -> Call:
    """An operation on images: JSON, uploaded files or an array."""
    form = random.choice(("", "/files", "/npy"))
    count = random.choice((1, 1, 4, 32))
    if form == "":
        body: dict[str, Any] = {"json": {"images": [_image() for _ in range(count)]}}
    elif form == "/files":
        body = {"files": [("images", ("digit.png", png(image))) for image in _digits(count)]}
    else:
        body = _arrays(_digits(count))
    return Call(name, "POST", f"/{name}{form}", {"model": model, **query}, body)


def _decode(model: str) -> Call:
    latents = np.random.default_rng().normal(size=(random.choice((1, 8, 64)), LATENT[model])).astype(np.float32)
    if random.random() < 0.5:
        return Call("decode", "POST", "/decode/npy", {"model": model}, _arrays(latents))
    path = random.choice(("/decode", "/decode/image"))
    return Call("decode", "POST", path, {"model": model}, {"json": {"latents": latents.tolist()}})


def _interpolate(model: str) -> Call:
    points = [{"image": _image()}, {"label": 3}, {"latent": [0.0] * LATENT[model]}]
    return Call("interpolate", "POST", "/interpolate", {"model": model}, {"json": {"points": points, "steps": 6}})


def _combine(model: str) -> Call:
    terms = [{"weight": 1.0, "image": _image()}, {"weight": 0.5, "label": 8}]
    return Call("combine", "POST", "/combine", {"model": model}, {"json": {"terms": terms}})


def _infer(model: str) -> Call:
    data = np.random.default_rng().normal(size=2 * LATENT[model]).tolist()
    tensor = {"name": "latent", "shape": [2, LATENT[model]], "datatype": "FP32", "data": data}
    return Call("infer", "POST", f"/v2/models/{model}.decoder/infer", {}, {"json": {"inputs": [tensor]}})


def _remote(model: str) -> Call:
    latents = np.random.default_rng().normal(size=(2, LATENT[model])).astype("<f4")
    query = {"model": model, "shape": list(latents.shape), "dtype": "float32", "output_type": "pt"}
    return Call(
        "remote",
        "POST",
        "/remote/decode",
        query,
        {"content": latents.tobytes(), "headers": {"Content-Type": "tensor/binary"}},
    )


def _get(name: str, path: str, **query: Any) -> Callable[[str], Call]:
    return lambda model: Call(name, "GET", path, {"model": model, **query})


def _invalid(_: str) -> Call:
    """An invalid request."""
    return random.choice(
        (
            Call(
                "invalid",
                "POST",
                "/encode",
                {},
                {"content": b"{", "headers": {"Content-Type": "application/json"}},
                (400,),
            ),
            Call("invalid", "POST", "/encode", {}, {"json": {"images": ["bm8gcGljdHVyZQ=="]}}, (422,)),
            Call("invalid", "POST", "/decode/npy", {}, _arrays(np.zeros((1, 3), np.float32)), (422,)),
            Call("invalid", "GET", "/sample", {"n": 100_000}, {}, (422,)),
            Call("invalid", "GET", "/sample", {"model": "nope"}, {}, (404,)),
            Call("invalid", "DELETE", "/sample", {}, {}, (405,)),
            Call("invalid", "POST", "/score", {}, {"content": b"x", "headers": {"Content-Type": "text/plain"}}, (415,)),
        )
    )


KINDS: tuple[Callable[[str], Call], ...] = (
    lambda model: _with_images("encode", model),
    lambda model: _with_images("encode", model, draw=True),
    lambda model: _with_images("reconstruct", model, mode=random.choice(("mean", "draw"))),
    lambda model: _with_images("score", model, k=random.choice((1, 16))),
    _decode,
    _interpolate,
    _combine,
    _infer,
    _remote,
    lambda model: Call("vary", "POST", "/vary", {"model": model, "n": 4}, {"json": {"images": [_image()]}}),
    _get("sample", "/sample", n=4),
    _get("sample", "/sample/image", n=16),
    _get("sample", "/sample/npy", n=64),
    _get("sample", "/sample/image", seed=1),
    _get("traverse", "/traverse/image"),
    _get("manifold", "/manifold/image", n=8),
    _get("posteriors", "/posteriors"),
    lambda _: Call("models", "GET", "/models"),
    lambda _: Call("live", "GET", "/health/live"),
    lambda _: Call("metrics", "GET", "/metrics"),
    _invalid,
)


def random_request() -> Call:
    """A request of a random kind to a random model."""
    return random.choice(KINDS)(random.choice(MODELS))


def disconnect(host: str, port: int) -> None:
    """Start a request and disconnect: during its body, before or during the response; half of the time with a reset."""
    head = "GET /sample/npy?n=256&model=mnist HTTP/1.1\r\nHost: localhost\r\n\r\n"
    if random.random() < 0.5:
        head = "POST /encode HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99999"
        head += "\r\n\r\n{"
    with socket.create_connection((host, port), timeout=30) as connection:
        connection.sendall(head.encode())
        if head.startswith("GET") and random.random() < 0.5:
            connection.recv(1000)
        if random.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
