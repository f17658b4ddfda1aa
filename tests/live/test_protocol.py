"""HTTP as it goes over the wire: heads joined to bodies, nothing lost, nothing waited for; clients that go away."""

import json
import re
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx2
import numpy as np
import pytest

from tests.conftest import MODELS, Start, base64_png, load_npz, npy
from tests.faults.bundles import image, put_faulty_bundle
from tests.faults.load import is_refused
from tests.processes import PATIENCE, until


def connect(client: httpx2.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port), timeout=PATIENCE)


def more(connection: socket.socket) -> bytes:
    """What comes next; a server that waits for something closes an idle connection in the end instead."""
    received = connection.recv(65536)
    assert received, "the answer is not whole"
    return received


def answers(client: httpx2.Client, *requests: bytes, count: int | None = None) -> list[bytes]:
    """What comes back for requests sent at once over one connection: heads with bodies, as the lengths say."""
    with connect(client) as connection:
        connection.sendall(b"".join(requests))
        received, found = b"", []
        for request in requests[:count]:
            while b"\r\n\r\n" not in received:
                received += more(connection)
            head, _, received = received.partition(b"\r\n\r\n")
            lengths = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length")]
            length = 0 if request.startswith(b"HEAD") or b" 304 " in head else lengths[0]
            while len(received) < length:
                received += more(connection)
            found.append(head + b"\r\n\r\n" + received[:length])
            received = received[length:]
        return found


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", "")).encode()


@pytest.fixture(scope="module")
def requests() -> list[tuple[bytes, int]]:
    """Requests and their statuses."""
    body = json.dumps({"latents": [[0.0, 0.0]]}).encode()
    post = get(
        "/decode?model=mnist-2d", "Content-Type: application/json", f"Content-Length: {len(body)}", method="POST"
    )
    return [
        (get("/sample/image?seed=1"), 200),
        (get("/", method="HEAD"), 200),
        (get("/sample/image", method="HEAD"), 200),
        (get("/encode", method="HEAD"), 405),
        (post + body, 200),
        (get("/nope"), 404),
        (get("/sample?n=0"), 422),
        (get("/docs"), 200),
        (get("/static/docs.js"), 200),
        (get("/static/docs.js", method="HEAD"), 200),
        (get("/static/docs.js", "Range: bytes=0-9"), 206),
        (get("/sample/npy?n=256&seed=1"), 200),
        (get("/openapi.json"), 200),
        (get("/metrics"), 200),
        (get("/health/live"), 200),
    ]


def test_every_answer_comes_at_once_and_whole(live: httpx2.Client, requests: list[tuple[bytes, int]]) -> None:
    for request, status in requests:
        (answer,) = answers(live, request)
        assert answer.startswith(b"HTTP/1.1 %d " % status), request
    # ... and in order, where they are sent without waiting.
    pipelined = answers(live, *(request for request, _ in requests))
    assert [int(answer[9:12]) for answer in pipelined] == [status for _, status in requests]


def test_a_small_answer_is_one_packet(live: httpx2.Client) -> None:
    with connect(live) as connection:
        for seed in range(20):
            connection.sendall(get(f"/sample/image?model=mnist-2d&seed={seed}"))
            assert b"\r\n\r\n\x89PNG" in connection.recv(65536)


def test_not_modified_has_no_body(live: httpx2.Client) -> None:
    etag = live.get("/sample/image?seed=1").headers["etag"]
    (answer, after) = answers(live, get("/sample/image?seed=1", f"If-None-Match: {etag}"), get("/health/live"))
    assert answer.startswith(b"HTTP/1.1 304 ")
    assert after.startswith(b"HTTP/1.1 200 ")


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(live: httpx2.Client) -> None:
    body = json.dumps({"latents": [[0.0, 0.0]]}).encode()
    headers = ("Content-Type: application/json", f"Content-Length: {len(body)}", "Expect: 100-continue")
    with connect(live) as connection:
        connection.sendall(get("/decode?model=mnist-2d", *headers, method="POST"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_offers_http_2_is_answered_in_http_1(start: Start) -> None:
    process, client = start(models_dir=MODELS)
    body = json.dumps({"latents": [[0.0, 0.0]]}).encode()
    offer = ("Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAEAAEAAAAIAAAAB", "Upgrade: h2c")
    headers = ("Content-Type: application/json", f"Content-Length: {len(body)}", *offer)
    with connect(client) as connection:
        for _ in range(2):
            connection.sendall(get("/decode?model=mnist-2d", *headers, method="POST"))
            time.sleep(0.05)  # Java's client sends the body apart
            connection.sendall(body)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    process.terminate()
    assert "pgrade" not in process.communicate(timeout=PATIENCE)[1]


@pytest.mark.parametrize("offer", ["Upgrade: h2c", "upgrade: h2c", "Upgrade: websocket", "Upgrade: a, b"])
def test_a_body_behind_an_offer_is_a_body(live: httpx2.Client, offer: str) -> None:
    hidden = get("/models")
    headers = ("Connection: Upgrade", offer, f"Content-Length: {len(hidden)}", "Content-Type: application/json")
    with connect(live) as connection:
        connection.sendall(get("/decode", *headers, method="POST"))
        time.sleep(0.05)
        connection.sendall(hidden + get("/health/live", "Connection: close"))
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"400", b"200"]


@pytest.mark.parametrize("pieces", [(b"UPGRADE: a\r\n",), (b"Upg", b"rade: a\r\n")])
def test_an_offer_that_is_overlooked_is_refused(live: httpx2.Client, pieces: tuple[bytes, ...]) -> None:
    hidden = get("/models")
    with connect(live) as connection:
        connection.sendall(b"POST /decode HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\n")
        connection.sendall(b"Content-Length: %d\r\n" % len(hidden))
        for piece in (*pieces, b"\r\n", hidden):
            connection.sendall(piece)
            time.sleep(0.05)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 400 ")


def test_trailers_are_no_headers(start: Start) -> None:
    """With them a client would bring a key, or an address, behind what a proxy has looked at."""
    key = "a-key-of-16-chars"
    process, client = start(models_dir=MODELS, api_key=key)
    head = get("/decode", "Transfer-Encoding: chunked", "Content-Type: application/json", method="POST")
    trailers = f"Authorization: Bearer {key}\r\nX-Forwarded-For: 192.0.2.1\r\nX-Request-ID: behind\r\n\r\n".encode()
    (answer,) = answers(client, head + b"2\r\n{}\r\n0\r\n" + trailers)
    assert answer.startswith(b"HTTP/1.1 401 ")
    process.terminate()
    log = process.communicate(timeout=PATIENCE)[1]
    assert "192.0.2.1" not in log
    assert "behind" not in log


def test_a_body_that_looks_like_an_offer_of_http_2_stays_as_it_is(live: httpx2.Client) -> None:
    pixels = np.zeros((1, 28, 28), np.uint8)
    pixels.reshape(-1)[100:116] = np.frombuffer(b"\r\nUpgrade: h2c\r\n", np.uint8)
    expected = live.post("/encode?model=mnist-2d", json={"images": [base64_png(pixels[0])]}).json()["mean"]
    body = npy(pixels)
    headers = ("Content-Type: application/x-npy", f"Content-Length: {len(body)}")
    with connect(live) as connection:
        connection.sendall(get("/encode/npy?model=mnist-2d", *headers, method="POST") + body)
        received = connection.recv(65536)
    np.testing.assert_allclose(load_npz(received.partition(b"\r\n\r\n")[2])["mean"], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        "GET /ü HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
        b"GET /health/live HTTP/1.1\r\n\r\n",
        b"GET http://a/health/live HTTP/1.1\r\n\r\n",
        b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nhost: localhost\r\n\r\n",
        b"GET /health/live HTTP/1.0\r\nHost: localhost\r\nHost: b\r\n\r\n",
        b"GET /health/live HTTP/0.9\r\nHost: localhost\r\n\r\n",
        b"GET /health/live HTTP/2.0\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_a_problem_document(live: httpx2.Client, request_: bytes) -> None:
    with connect(live) as connection:
        connection.sendall(request_)
        received = b""
        while more := connection.recv(65536):  # until it closes
            received += more
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["status"] == 400


@pytest.mark.parametrize("head", [b"HTTP/1.0\r\n", b"HTTP/1.0\r\nHost: localhost\r\n", b"HTTP/1.1\r\nHost:\r\n"])
def test_a_host_may_be_empty_and_older_clients_need_not_name_one(live: httpx2.Client, head: bytes) -> None:
    (answer,) = answers(live, b"GET /health/live " + head + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


def metric(client: httpx2.Client, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return next((float(line.split(" ")[1]) for line in lines if line.startswith(f"{name} ")), 0.0)


def test_rows_of_clients_that_went_away_are_dropped(start: Start, tmp_path: Path) -> None:
    """They wait for a graph that takes seconds, until all have gone; who asks after them is answered after it."""
    put_faulty_bundle(tmp_path, "takes long")
    _, client = start(models_dir=tmp_path, slots=1, threads=1, wait_seconds=PATIENCE, log_level="warning")
    with ExitStack() as leaving:
        for first, number, count in ((4, 1, 1), (0, 8, 4)):
            body = json.dumps({"images": [base64_png(image(first))] * count}).encode()
            headers = ("Content-Type: application/json", f"Content-Length: {len(body)}")
            for _ in range(number):
                connection = leaving.enter_context(connect(client))
                connection.sendall(get("/encode", *headers, method="POST") + body)
            assert until(lambda: metric(client, "vae_busy_slots") == 1)
        assert until(lambda: metric(client, "vae_queue_rows") == 8 * 4)
    kept = client.post("/encode", json={"images": [base64_png(image())]})
    assert kept.status_code == 200
    assert until(lambda: metric(client, 'vae_requests_total{operation="encode",status="499"}') == 9)
    assert metric(client, "vae_dropped_rows_total") == 8 * 4
    assert metric(client, 'vae_requests_total{operation="encode",status="500"}') == 0


def test_what_is_asked_of_a_stopping_server_is_answered_once_more(start: Start) -> None:
    process, client = start(models_dir=MODELS)
    with connect(client) as fresh, connect(client) as used, connect(client) as silent:
        used.sendall(get("/health/live"))
        assert used.recv(65536).startswith(b"HTTP/1.1 200 ")
        process.terminate()
        assert until(lambda: is_refused(client))  # it stops: nobody is let in any more
        for connection in (fresh, used):
            connection.sendall(get("/sample?seed=1"))
            received = b""
            while more := connection.recv(65536):  # until it closes
                received += more
            assert received.startswith(b"HTTP/1.1 200 ")
            assert b"connection: close" in received
            assert received.endswith(b"}")
        assert silent.recv(1) == b""
    _, log = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in log


def test_a_client_that_hangs_up_while_it_sends_is_no_error_of_ours(start: Start) -> None:
    process, client = start(models_dir=MODELS)
    with connect(client) as connection:
        connection.sendall(
            get("/encode", "Content-Type: application/json", "Content-Length: 100", method="POST") + b"{"
        )
    assert until(lambda: metric(client, 'vae_requests_total{operation="encode",status="499"}') == 1)
    process.terminate()
    assert "Traceback" not in process.communicate(timeout=PATIENCE)[1]


def test_bodies_that_stall_take_no_more_than_their_room(start: Start) -> None:
    size, only = 2**20, "mnist-2d"
    settings = {"models": only, "default_model": only, "max_body_bytes": size, "bodies_bytes": 4 * size}
    _, client = start(models_dir=MODELS, log_level="warning", **settings)
    head = get("/encode", f"Content-Length: {size}", "Content-Type: application/json", method="POST")
    large = {"images": [base64_png(np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8))] * 256}
    assert 2**16 < len(json.dumps(large)) < size
    with ExitStack() as open_until_here:
        for _ in range(8):
            connection = open_until_here.enter_context(connect(client))
            with suppress(ConnectionError):  # refused while it is sent
                connection.sendall(head + b" " * (size - 1))
            assert client.get("/sample?n=1").status_code == 200
        assert metric(client, 'vae_rejections_total{reason="overloaded"}') >= 1
        assert client.post("/encode", json={"images": large["images"][:9]}).status_code == 200  # small bodies pass
        assert until(lambda: client.post("/encode", json=large).status_code == 200)  # one that stalls has made room
    assert metric(client, 'vae_rejections_total{reason="request-timeout"}') >= 1
