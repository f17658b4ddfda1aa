"""Load on a server, and the figures of it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest

from app.cli.commands.bench import Load, run_load
from app.cli.connection import Connection, Request
from app.errors import CommandError
from tests.app.cli.conftest import Call


@pytest.mark.parametrize("operation", ["encode", "decode", "reconstruct", "sample"])
def test_every_operation_is_answered(call: Call, operation: str) -> None:
    options = ("--duration", 0.3, "--connections", 2, "--rows", 3, "--model", "mnist-2d", "--json")
    status, text, told = call("bench", operation, *options)
    assert (status, told) == (0, "")
    report = json.loads(text)
    assert list(report["statuses"]) == ["200"]
    assert report["images_per_second"] == pytest.approx(3 * report["requests_per_second"], abs=0.3)
    assert report["statuses"]["200"] == pytest.approx(report["requests_per_second"] * report["seconds"], rel=0.05)
    latency = report["latency_ms"]
    assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"] <= latency["max"]
    assert 0 < report["server_inference_time_ms"] < latency["max"]
    assert (report["model"], report["operation"], report["rows"]) == ("mnist-2d", operation, 3)


def test_a_table_for_people(call: Call) -> None:
    status, text, _ = call("bench", "--duration", 0.2, "--connections", 1)
    assert status == 0
    assert re.match(r"encode by mnist 2: rows 1 a request, 1 connections, 0\.\d+ s\s*\n", text)
    for name in ("requests/s", "images/s", "latency, ms", "of it queued, ms", "of it inference, ms", "statuses"):
        assert f"\n{name} " in text


def test_where_everything_is_refused_one_learns_why(call: Call) -> None:
    status, text, told = call("bench", "sample", "--rows", 1000, "--duration", 0.2)
    assert (status, text) == (1, "")
    refusal = "n: 1 to 256 are allowed, which the server's setting VAE_MAX_ROWS says"
    assert told == f"error: no request was answered: Invalid input: {refusal}\n"


def test_refusals_are_counted_and_not_timed() -> None:
    load = Load(seconds=2.0)
    load.add(0.001, 503, {}, b"full")
    for milliseconds in range(1, 101):
        load.add(milliseconds / 1e3, 200, {b"x-queue-time": b"1.5"}, b"")
    report = load.report(rows=4)
    assert report["statuses"] == {"200": 100, "503": 1}
    assert (report["requests_per_second"], report["images_per_second"]) == (50.0, 200.0)
    assert report["latency_ms"] == {"p50": 50.5, "p90": 90.1, "p99": 99.01, "max": 100.0}
    assert (report["server_queue_time_ms"], report["server_inference_time_ms"]) == (1.5, None)


Speaking = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def speaking(answer: Speaking) -> AsyncIterator[str]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/vae/"


def test_a_connection_is_kept_until_the_server_closes_it() -> None:
    seen: list[bytes] = []
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for close in (False, True):
            seen.append(await reader.readuntil(b"body"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + b"Connection: close\r\n" * close + b"\r\nok")
        writer.close()

    async def run() -> None:
        async with speaking(answer) as url:
            connection = Connection(Request.of(url, "key", "POST", "/encode?x=1", b"body", "text/plain"))
            for _ in range(4):
                status, headers, body = await connection.send()
                assert (status, headers[b"content-length"], body) == (200, b"2", b"ok")
            connection.close()

    asyncio.run(run())
    assert connections == 2
    head = seen[0].split(b"\r\n")
    assert head[0] == b"POST /vae/encode?x=1 HTTP/1.1"
    assert {b"Authorization: Bearer key", b"Content-Type: text/plain", b"Content-Length: 4"} <= set(head)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", ConnectionError),
        (b"SSH-2.0\r\n\r\n", CommandError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", CommandError),
    ],
)
def test_what_is_not_understood_is_an_error(said: bytes, error: type[Exception]) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    async def run() -> None:
        async with speaking(answer) as url:
            connection = Connection(Request.of(url, None, "GET", "/"))
            with pytest.raises(error):
                await connection.send()
            connection.close()

    asyncio.run(run())


def test_a_server_that_goes_away_ends_the_load() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def run() -> None:
        async with speaking(answer) as url:
            await run_load(Request.of(url, None, "GET", "/"), connections=2, duration=5)

    with pytest.raises(CommandError, match="the connection to the server broke: "):
        asyncio.run(run())


def test_noise_has_the_models_shape(call: Call) -> None:
    """A request of another shape would be refused, and nothing of it counted."""
    for model in ("mnist", "mnist-2d", "digits-ae"):
        report = json.loads(call("bench", "decode", "-m", model, "--duration", 0.1, "--json")[1])
        assert np.isfinite(report["latency_ms"]["p50"])
