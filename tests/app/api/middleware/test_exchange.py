"""docs/limits.md is true: each limit on what is in a request is broken by a client, and answered as it says there."""

import asyncio
import gzip
import io
import json
import re
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.lib import format as npy_format
from PIL import Image
from starlette.testclient import TestClient
from starlette.types import Message

from app.api.middleware.exchange import STALLED_SECONDS, UNCOUNTED_BYTES, Exchanges
from app.errors import Overloaded, RequestTimeout
from app.security.addresses import network
from app.settings import Settings
from tests import hostile
from tests.conftest import ROOT, base64_png, full, npy, png
from tests.repo.test_docs import rows

PAGE = (ROOT / "docs" / "limits.md").read_text()
CONNECTIONS, REQUESTS, FIXED = (
    {row[0]: row[1:] for row in rows(PAGE, heading)[2:]}
    for heading in ("Connections and time", "Contents of a request", "Fixed limits")
)
LIMIT = re.compile("max_.*|.*_(seconds|rows|bytes)")
NO_LIMITS = {"shutdown_seconds", "load_seconds", "batch_seconds", "batch_rows", "whole_bytes"}

JSON, ARRAY, FORM = (
    {"Content-Type": kind} for kind in ("application/json", "application/x-npy", "multipart/form-data; boundary=x")
)
MODEL = "model=mnist-2d"
INFER = "/v2/models/mnist-2d.decoder/infer"
BLACK = np.zeros((28, 28), np.uint8)

Send = Callable[[TestClient], Any]


def form(*parts: str) -> bytes:
    """A form of parts, which are their headers."""
    return "".join(f"--x\r\n{headers}\r\n\r\n1\r\n" for headers in parts).encode() + b"--x--\r\n"


def part(name: str = "images", file: bool = True) -> str:
    return f'Content-Disposition: form-data; name="{name}"' + '; filename="a"' * file


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and holds nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    pieces = [struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def npy_of(shape: str) -> bytes:
    """An npy file whose header is the text of a shape."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return npy_format.magic(1, 0) + struct.pack("<H", len(header)) + header


def animation() -> bytes:
    buffer = io.BytesIO()
    frames = [Image.new("L", (28, 28), level) for level in (0, 255)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def tensor(**members: Any) -> dict[str, Any]:
    return {"name": "latent", "shape": [1, 2], "datatype": "FP32", "data": [0, 0]} | members


def post(path: str, content: Any, headers: dict[str, str] = JSON) -> Send:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return lambda client: client.post(path, content=body, headers=headers)


def stream(client: TestClient) -> Any:
    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    return client.post("/encode", content=chunks(), headers=JSON)


def encode(content: bytes) -> Send:
    return post(f"/encode/files?{MODEL}", form(part()).replace(b"\r\n1\r\n", b"\r\n" + content + b"\r\n"), FORM)


def latents(count: int) -> dict[str, Any]:
    return {"latents": [[0, 0]] * count}


def points(count: int, **members: Any) -> dict[str, Any]:
    return {"points": [{"latent": [0, 0]}] * count} | members


IN_A_REQUEST: dict[str, tuple[dict[str, int], list[Send]]] = {
    "bytes of the body, counted while it arrives": (
        {"max_body_bytes": 100_000},
        [post("/encode", b" " * 100_001), stream],
    ),
    "bytes of a body with a content encoding, decompressed (`/v2`)": (
        {"max_body_bytes": 100_000},
        [post(INFER, gzip.compress(b" " * 50_000_000), JSON | {"Content-Encoding": "gzip"})],
    ),
    "images, latents or samples; rows of an array or tensor": (
        {"max_rows": 3},
        [
            post(f"/encode?{MODEL}", {"images": [base64_png(BLACK)] * 4}),
            post(f"/encode/npy?{MODEL}", npy(np.zeros((4, 28, 28), np.uint8)), ARRAY),
            post(f"/decode?{MODEL}", latents(4)),
            post(f"/vary?{MODEL}&n=4", {"images": [base64_png(BLACK)]}),
            post(INFER, {"inputs": [tensor(shape=[4, 2], data=[0] * 8)]}),
            lambda client: client.get(f"/sample?{MODEL}&n=4"),
        ],
    ),
    "files of a form; other fields of a form": (
        {},
        [
            post("/encode/files", form(*[part()] * 10_000), FORM),
            post("/encode/files", form(*[part(file=False)] * 10_000), FORM),
        ],
    ),
    "rows in the queue at the same time": (
        {"queue_rows": 3},
        [
            lambda client: client.get(f"/sample?{MODEL}&n=4"),
            post(f"/encode/npy?{MODEL}", npy(np.zeros((4, 28, 28), np.uint8)), ARRAY),
            post(f"/interpolate?{MODEL}", points(2, steps=4)),
            post(f"/vary?{MODEL}&n=4", {"images": [base64_png(BLACK)]}),
            post(INFER, {"inputs": [tensor(shape=[4, 2], data=[0] * 8)]}),
        ],
    ),
    "pixels of all images generated, and of those that `scale` enlarges": (
        {"max_pixels": 1000},
        [
            lambda client: client.get(f"/sample?{MODEL}&n=2"),
            post(f"/decode?{MODEL}", latents(2)),
            post(f"/interpolate?{MODEL}", points(2)),
            post(f"/vary?{MODEL}&n=2", {"images": [base64_png(BLACK)]}),
            post(INFER, {"inputs": [tensor(shape=[2, 2], data=[0] * 4)]}),
            lambda client: client.get(f"/traverse?{MODEL}"),
            lambda client: client.get(f"/manifold/image?{MODEL}"),
            lambda client: client.get(f"/sample/image?{MODEL}&scale=2"),
        ],
    ),
    "pixels of all images sent, read from their headers before decoding": (
        {"max_pixels": 1000},
        [
            encode(png_of(50_000, 50_000)),
            encode(png_of(2**31 - 1, 2**31 - 1)),
            post(f"/encode?{MODEL}", {"images": [base64_png(BLACK)] * 2}),
        ],
    ),
    "draws of `/score`: `k` times the number of images": (
        {"max_draws": 10},
        [post("/score?k=6", {"images": [base64_png(BLACK)] * 2})],
    ),
    "steps of `/interpolate` and `/traverse`": (
        {"max_steps": 5},
        [post(f"/interpolate?{MODEL}", points(2, steps=6)), lambda client: client.get(f"/traverse?{MODEL}&steps=6")],
    ),
    "images along one side of `/manifold/image`": (
        {"max_manifold": 3},
        [lambda client: client.get(f"/manifold/image?{MODEL}&n=4")],
    ),
}

FIXED_CASES: dict[str, tuple[dict[str, int], list[Send]]] = {
    "query parameters": ({}, [lambda client: client.get("/sample?" + "&".join(["n=1"] * 4097))]),
    "nesting depth of JSON": ({}, [post("/decode", b'{"latents": ' + b"[" * 300 + b"]" * 300 + b"}")]),
    "members of all objects in JSON": (
        {},
        [
            post("/decode", dict.fromkeys(map(str, range(4097)), 1)),
            post(INFER, {"inputs": [tensor()], "parameters": dict.fromkeys(map(str, range(4097)), 1)}),
        ],
    ),
    "lists and objects; commas; escapes but of slashes, pluses and line breaks; in JSON of more than 256 KiB": (
        {},
        [
            post("/decode", b'{"latents": [' + b"[1]," * 131_072 + b"[1]]}"),
            post("/decode", b'{"latents": [[' + b"1," * 1_048_577 + b"1]]}"),
            post("/encode", b'{"images": ["' + rb"\u0041" * 65_537 + b'"]}'),
        ],
    ),
    "points of `/interpolate`": ({}, [post(f"/interpolate?{MODEL}", points(17))]),
    "terms of `/combine`": ({}, [post(f"/combine?{MODEL}", {"terms": [{"weight": 1, "latent": [0, 0]}] * 65})]),
    "header of an npy array": (
        {},
        [
            post("/encode/npy", npy_of("(" + " " * 5000 + "0,)"), ARRAY),
            post("/encode/npy", npy_of("(1, 1, 1, 1, 1, 1, 1, 1, 1)") + b"x", ARRAY),
        ],
    ),
    "headers of one part of a form": (
        {},
        [
            post("/encode/files", form(part() + "\r\nX: 1" * 8), FORM),
            post("/encode/files", form(part() + "\r\nX: " + "x" * 4224), FORM),
        ],
    ),
    "input tensors of `/v2`": ({}, [post(INFER, {"inputs": [tensor()] * 17})]),
    "bytes of JSON before binary tensors of `/v2`": ({"max_rows": 1}, [post(INFER, b" " * 200_000)]),
    "frames of an image file": ({}, [encode(animation())]),
    "side of an image that is sent": ({}, [encode(png_of(65_536, 1)), encode(png_of(1, 65_536))]),
    "scans of a JPEG; pixels of all its scans together": (
        {},
        [encode(hostile.many_scans(64, 101)), encode(hostile.many_scans(4096, 33))],
    ),
    "chunks, segments or blocks of all image files of a request, beside the data blocks of GIFs": (
        {},
        [
            encode(hostile.png_with(hostile.chunk(b"tEXt", b"a\0b") * 18_000)),
            encode(hostile.jpeg_with(hostile.segment(0xFE, b"") * 18_000)),
            encode(hostile.gif_with(b"!\xfe\x01a\0" * 18_000)),
            encode(hostile.webp_with(hostile.riff(b"junk", b"") * 18_000)),
        ],
    ),
    "mean size of the data blocks of a GIF, beyond the first 16384 of them": (
        {},
        [encode(hostile.gif_with(b"!\xfe" + b"\x01a" * 20_000 + b"\0"))],
    ),
    "fill bytes of a JPEG, one after the other": ({}, [encode(hostile.jpeg_with(b"\xff" * 65))]),
    "side of an image in a response": (
        {"max_rows": 2500},
        [
            post(f"/decode/image?{MODEL}&columns=1", latents(2340)),
            post(f"/decode/image?{MODEL}&columns=1&format=webp", latents(586)),
        ],
    ),
}

OF_CONNECTIONS = {
    # tests/app/server/test_handshakes.py
    "TLS connections that have sent nothing yet, at the same time",
    "TLS handshakes in progress, at the same time",
    "seconds until a TLS connection sends its first byte; seconds of its handshake",
    "`Host` headers of a request",  # tests/live/test_protocol.py
    "pipelined requests of a connection, behind the current one",  # tests/live/test_connections.py
}

BY_CONNECTIONS = {
    "max_connections_per_address": "tests/live/test_crowds.py::test_one_address_cannot_take_all_places",
    "max_connections": "tests/live/test_crowds.py::test_a_connection_too_many_is_refused_until_another_ends",
    "max_header_bytes": "tests/live/test_connections.py::test_a_head_over_the_limit_is_refused",
    "receive_seconds": "tests/live/test_connections.py::test_a_request_that_does_not_arrive_in_time_is_refused",
    "keep_alive_seconds": "tests/live/test_connections.py::test_a_connection_that_asks_no_more_is_closed",
    "send_seconds": "tests/live/test_connections.py::test_a_client_that_does_not_read_its_answer_is_given_up",
    "bodies_bytes": "tests/live/test_protocol.py::test_bodies_that_stall_take_no_more_than_their_room",
    "request_seconds": "tests/app/api/routing/test_disconnect.py::test_a_request_past_its_deadline_is_answered",
    "queue_seconds": "tests/app/api/middleware/test_exchange.py::test_rows_that_wait_too_long_are_dropped",
    "queue_rows": "tests/app/api/middleware/test_exchange.py::test_rows_beyond_the_queue_are_refused",
    "wait_seconds": "tests/app/api/middleware/test_exchange.py::test_who_would_wait_too_long_is_refused",
}
"""The limits of connections and of time, and who breaks them."""


def broken(client: TestClient, send: Send, status: int) -> Any:
    """The problem that a client gets."""
    answer = send(client)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 1000
    return answer.json()


@pytest.mark.parametrize("what", REQUESTS)
def test_a_limit_that_is_set_is_kept(make_client: Callable[..., TestClient], what: str) -> None:
    settings, sends = IN_A_REQUEST[what]
    client = make_client(**settings)
    for send in sends:
        told = json.dumps(broken(client, send, int(REQUESTS[what][2])))
        assert not settings or re.search(rf"\b{next(iter(settings.values()))}\b", told), told
    assert client.get("/models").json()["queued_rows"] == 0


@pytest.mark.parametrize("what", sorted(FIXED.keys() - OF_CONNECTIONS))
def test_a_limit_that_no_setting_moves_is_kept(make_client: Callable[..., TestClient], what: str) -> None:
    settings, sends = FIXED_CASES[what]
    client = make_client(**settings)
    for send in sends:
        broken(client, send, int(FIXED[what][1]))


def test_what_is_just_within_the_limits_passes(make_client: Callable[..., TestClient]) -> None:
    client = make_client(max_rows=3, max_pixels=64 * 64, max_steps=5, max_manifold=2)
    passing = [
        post("/encode/files", form(*[part()] * 3).replace(b"\r\n1\r\n", b"\r\n" + png(BLACK) + b"\r\n"), FORM),
        post("/decode", latents(3)),
        post("/interpolate", points(2, steps=5)),
        encode(hostile.many_scans(64, 100)),
        encode(png(BLACK)),
        lambda client: client.get("/sample?n=3"),
        lambda client: client.get("/manifold/image?n=2"),
    ]
    for send in passing:
        assert send(client).status_code == 200


@pytest.mark.parametrize("end", [b"--x--\r\n", b"-\r\n", b"x--\r\n", b"\r\n--x--\r\n"])
@pytest.mark.parametrize("count", [1, 2])
def test_a_form_that_is_cut_off_is_no_form(make_client: Callable[..., TestClient], end: bytes, count: int) -> None:
    whole = form(*[part()] * count).replace(b"\r\n1\r\n", b"\r\n" + png(BLACK) + b"\r\n")
    send = post("/encode/files", whole.removesuffix(b"\r\n--x--\r\n" if end.startswith(b"\r\n") else end), FORM)
    broken(make_client(), send, 400)


def test_rows_beyond_the_queue_are_refused(make_client: Callable[..., TestClient]) -> None:
    client = make_client(queue_rows=2)
    with full(client):
        answer = client.get("/sample?n=2")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert client.get("/sample?n=2").status_code == 200


def test_a_client_with_less_than_its_share_finds_room_though_another_fills_the_queue(
    make_client: Callable[..., TestClient],
) -> None:
    client = make_client(queue_rows=4)
    with full(client, "192.0.2.1"):
        assert client.get("/sample?n=2").status_code == 200
        assert client.get("/sample?n=3").status_code == 503


def test_who_would_wait_too_long_to_be_answered_is_refused_before_anything_runs(
    make_client: Callable[..., TestClient],
) -> None:
    client = make_client(slots=1, wait_seconds=2)
    offload = client.app_state["server"].offload
    offload._waiting[network("testclient")] = deque([SimpleNamespace(seconds=60.0)])
    answers = [client.get("/sample"), client.post("/encode", content=b"no JSON")]
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(503, "1")}
    offload._waiting.clear()
    assert client.get("/sample").status_code == 200


@pytest.mark.parametrize("escaped", [rb"\/", rb"\u002B", rb"\u002b", rb"\r\n"])
def test_as_many_escapes_as_encoders_of_base64_make_are_read(client: TestClient, escaped: bytes) -> None:
    body = b'{"images": ["' + b"AAAA" * 50_000 + escaped * 70_000 + b'"]}'
    answer = client.post("/encode", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/images/0")  # no image


def test_who_would_wait_too_long_is_refused(make_client: Callable[..., TestClient]) -> None:
    client = make_client(wait_seconds=1e-6, slots=1)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda seed: client.get(f"/sample?n=256&seed={seed}"), range(64)))
    assert {answer.status_code for answer in answers} == {200, 503}
    assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 503} == {"1"}
    assert client.get("/sample?n=256").status_code == 200  # now that nobody waits
    assert client.get("/models").json()["queued_rows"] == 0


def test_whose_images_would_wait_too_long_is_refused(make_client: Callable[..., TestClient]) -> None:
    client = make_client(wait_seconds=1e-6, slots=1)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: encode(hostile.huge_png(2000, 2000))(client), range(32)))
    assert {answer.status_code for answer in answers} == {200, 503}
    assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 503} == {"1"}
    assert encode(hostile.huge_png(2000, 2000))(client).status_code == 200


def test_rows_that_wait_too_long_are_dropped(make_client: Callable[..., TestClient]) -> None:
    client = make_client(queue_seconds=1e-9)
    assert client.get("/sample?n=3").status_code == 504
    assert client.get("/models").json()["queued_rows"] == 0


class Sender:
    """A client that sends a body in chunks, when it is told to, and what becomes of its request."""

    def __init__(self, app: Exchanges) -> None:
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self.received = 0
        scope: Any = {"type": "http", "method": "POST", "headers": [], "sender": self}

        async def receive() -> Message:
            return {"type": "http.request", "body": await self.chunks.get(), "more_body": True}

        async def send(_: Message) -> None:
            raise AssertionError("nobody answers")

        self.task = asyncio.create_task(app(scope, receive, send))  # type: ignore[arg-type]

    async def send(self, size: int) -> "Sender":
        """Send a chunk, and let the server take it, or the request end."""
        self.chunks.put_nowait(bytes(size))
        expected = self.received + size
        for _ in range(100):
            if self.received < expected and not self.task.done():
                await asyncio.sleep(0)
        return self


async def reading(scope: Any, receive: Any, _: Any) -> None:
    """An application that reads a body without an end."""
    while True:
        scope["sender"].received += len((await receive())["body"])


def test_all_bodies_together_are_bounded_and_the_one_that_stalls_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are those of a clock that the test moves."""

    async def main() -> None:
        now, loop = 0.0, asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: now)
        app = Exchanges(reading, max_body_bytes=10**6, max_held_bytes=1_000_000)
        first, second = await Sender(app).send(400_000), await Sender(app).send(400_000)
        small = await Sender(app).send(UNCOUNTED_BYTES)  # counts nothing
        third = await Sender(app).send(300_000)
        with pytest.raises(Overloaded, match="take all the room"):
            await third.task
        now += STALLED_SECONDS
        await second.send(100_000)  # goes on
        fourth = await Sender(app).send(300_000)
        with pytest.raises(Overloaded):
            await fourth.task  # the room that is made is for the next one
        with pytest.raises(RequestTimeout, match="stopped arriving"):
            await first.task
        fifth = await Sender(app).send(300_000)
        assert app._bodies.bytes == 800_000
        for sender in (second, small, fifth):
            assert not sender.task.done()
            sender.task.cancel()
        await asyncio.gather(second.task, small.task, fifth.task, return_exceptions=True)
        assert app._bodies.bytes == 0

    asyncio.run(main())


def test_a_request_that_is_being_answered_does_not_stall() -> None:
    """The server waits for the disconnect of its client, as it waits for the bytes of a body."""

    async def main() -> None:
        waits = asyncio.Event()

        async def answering(scope: Any, receive: Any, _: Any) -> None:
            await receive()
            waits.set()
            await receive()

        async def receive() -> Message:
            if not waits.is_set():
                return {"type": "http.request", "body": bytes(100_000), "more_body": False}
            return await asyncio.Future()

        app = Exchanges(answering, max_body_bytes=10**6, max_held_bytes=100_000)
        scope: Any = {"type": "http", "method": "POST", "headers": []}
        task = asyncio.create_task(app(scope, receive, receive))  # type: ignore[arg-type]
        await waits.wait()
        assert app._bodies.bytes == 100_000
        assert app._bodies._arriving == {}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert app._bodies.bytes == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("limit", "settings", "held"),
    [
        (None, {}, 2**26),
        (2**32, {}, 2**28),
        (2**32, {"workers": 2}, 2**27),
        (2**28, {}, 2**26),  # two of the largest bodies
        (2**30, {"bodies_bytes": 1000}, 1000),
    ],
)
def test_the_room_for_bodies_follows_from_the_limit_of_memory(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, settings: dict[str, int], held: int
) -> None:
    monkeypatch.setattr("app.settings.memory_limit", lambda: limit)
    assert Settings(**settings).held_bytes == held


def test_what_is_kept_in_memory_is_bounded(make_client: Callable[..., TestClient]) -> None:
    client = make_client(cache_bytes=50_000)
    for seed in range(100):
        assert client.get(f"/sample/image?seed={seed}").status_code == 200
    assert 0 < client.app_state["server"].cache.bytes <= 50_000


def test_every_limit_is_documented_with_its_default_and_broken_by_a_client() -> None:
    limits = {name for name in Settings.model_fields if LIMIT.fullmatch(name)} - NO_LIMITS
    table = [*CONNECTIONS.values(), *REQUESTS.values()]
    documented = {row[0].strip("`").removeprefix("VAE_").lower(): row[1] for row in table}
    assert set(documented) | {"cache_bytes"} == limits
    assert documented == {name: f"{Settings.model_fields[name].default:.0f}" for name in documented}
    assert f"(`VAE_CACHE_BYTES`, {Settings.model_fields['cache_bytes'].default})" in PAGE
    assert set(IN_A_REQUEST) == set(REQUESTS)
    assert set(FIXED_CASES) | OF_CONNECTIONS == set(FIXED)
    assert {f"`VAE_{name.upper()}`" for name in BY_CONNECTIONS} == {row[0] for row in CONNECTIONS.values()}
    for test in BY_CONNECTIONS.values():
        path, _, name = test.partition("::")
        assert f"def {name}" in Path(ROOT / path).read_text()
