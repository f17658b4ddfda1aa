"""Load on a server, and the figures of it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest

from app.cli.client import ServerClient, connect
from app.cli.commands.bench import Load, run_load
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
    refusal = "n: 1 to 256 are allowed, by the server's setting VAE_MAX_ROWS"
    assert told == f"error: no request was answered: Invalid input: {refusal}\n"


def test_refusals_are_counted_and_not_timed() -> None:
    load = Load(seconds=2.0)
    load.statuses[503] += 1
    for milliseconds in range(1, 101):
        load.add(milliseconds / 1e3, {"X-Queue-Time": "1.5"})
    report = load.report(rows=4)
    assert report["statuses"] == {"200": 100, "503": 1}
    assert (report["requests_per_second"], report["images_per_second"]) == (50.0, 200.0)
    assert report["latency_ms"] == {"p50": 50.5, "p90": 90.1, "p99": 99.01, "max": 100.0}
    assert (report["server_queue_time_ms"], report["server_inference_time_ms"]) == (1.5, None)


@asynccontextmanager
async def answering(answer: Callable[[asyncio.StreamWriter], None]) -> AsyncIterator[tuple[ServerClient, list[bytes]]]:
    """A client of a server that writes the same answer to every request, and what each of its connections received."""
    received: list[bytes] = []
    tasks: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        index = len(received)
        received.append(b"")
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                received[index] += await reader.readuntil(b"body")
                answer(writer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/vae/"
    async with server:
        async with connect(address, "key") as client:
            yield client, received
        await asyncio.gather(*(task for task in tasks if task))


REQUEST = {"method": "POST", "path": "encode", "query": {"x": 1}, "content": b"body"}


def test_each_connection_is_kept_for_the_whole_load() -> None:
    async def run() -> None:
        async with answering(lambda writer: writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")) as (
            client,
            received,
        ):
            load = await run_load(client, REQUEST, connections=3, duration=0.3)
            assert len(received) == 3
            assert sum(text.count(b"POST /vae/encode?x=1 HTTP/1.1\r\n") for text in received) == 3 + load.statuses[200]
            assert all(b"Authorization: Bearer key\r\n" in text for text in received)

    asyncio.run(run())


def test_a_connection_that_the_server_closes_is_opened_again() -> None:
    def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    async def run() -> None:
        async with answering(answer) as (client, received):
            load = await run_load(client, REQUEST, connections=2, duration=0.2)
            assert len(received) == 2 + load.statuses[200] > 4

    asyncio.run(run())


@pytest.mark.parametrize("said", [b"", b"SSH-2.0\r\n\r\n"])
def test_a_server_that_speaks_no_http_ends_the_load(said: bytes) -> None:
    def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    async def run() -> None:
        async with answering(answer) as (client, _):
            await run_load(client, REQUEST, connections=2, duration=5)

    with pytest.raises(CommandError, match=r"the connection to .* broke: "):
        asyncio.run(run())


def test_a_server_that_goes_away_ends_the_load() -> None:
    answers = 0

    def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        answers += 1
        if answers <= 4:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.close()

    async def run() -> None:
        async with answering(answer) as (client, _):
            await run_load(client, REQUEST, connections=2, duration=5)

    with pytest.raises(CommandError, match=r"the connection to .* broke: "):
        asyncio.run(run())


def test_noise_has_the_models_shape(call: Call) -> None:
    """A request of another shape would be refused, and nothing of it counted."""
    for model in ("mnist", "mnist-2d", "digits-ae"):
        report = json.loads(call("bench", "decode", "-m", model, "--duration", 0.1, "--json")[1])
        assert np.isfinite(report["latency_ms"]["p50"])
