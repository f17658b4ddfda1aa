"""Load on a server, and the figures of it."""

import itertools
import json
import re
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from app.cli.commands.bench import BenchRequest, BenchResponse, Load, run_load
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
    responses = [BenchResponse(milliseconds / 1e3, 200, "1.5", None) for milliseconds in range(1, 101)]
    load = Load(2.0, [BenchResponse(0.001, 503, None, None), *responses])
    report = load.report(rows=4)
    assert report["statuses"] == {"200": 100, "503": 1}
    assert (report["requests_per_second"], report["images_per_second"]) == (50.0, 200.0)
    assert report["latency_ms"] == {"p50": 50.5, "p90": 90.1, "p99": 99.01, "max": 100.0}
    assert (report["server_queue_time_ms"], report["server_inference_time_ms"]) == (1.5, None)


@contextmanager
def answering(answer: bytes, count: int | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """Address of a server that sends the same answer to each request, and what each of its connections received.

    It closes a connection after `count` answers in all, after `Connection: close`, and after an answer that is no HTTP.
    """
    received: list[bytes] = []
    answers = itertools.count(1)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            index = len(received)
            received.append(b"")
            while line := self.rfile.readline():
                received[index] += line
                if line == b"body\n":
                    if count is not None and next(answers) > count:
                        return
                    self.wfile.write(answer)
                    if not answer.startswith(b"HTTP") or b"close" in answer:
                        return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/vae/", received
        finally:
            server.shutdown()


REQUEST = BenchRequest("POST", "/encode?x=1", b"body\n", {"Authorization": "Bearer key"})
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_each_connection_is_kept_for_the_whole_load() -> None:
    with answering(OK) as (url, received):
        load = run_load(url, REQUEST, connections=3, duration=0.3)
    assert len(received) == 3
    assert sum(text.count(b"POST /vae/encode?x=1 HTTP/1.1\r\n") for text in received) == 3 + len(load.responses)
    assert all(b"Authorization: Bearer key\r\n" in text and b"Content-Length: 5\r\n" in text for text in received)


def test_a_connection_that_the_server_closes_is_opened_again() -> None:
    with answering(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as (url, received):
        load = run_load(url, REQUEST, connections=2, duration=0.3)
    assert len(received) == 2 + len(load.responses)
    assert {response.status for response in load.responses} == {200}


@pytest.mark.parametrize("said", [b"", b"SSH-2.0\r\n\r\n"])
def test_a_server_that_speaks_no_http_ends_the_load(said: bytes) -> None:
    with answering(said) as (url, _), pytest.raises(CommandError, match=r"the connection to http://.* broke: "):
        run_load(url, REQUEST, connections=2, duration=5)


def test_a_server_that_goes_away_ends_the_load() -> None:
    with answering(OK, count=4) as (url, _), pytest.raises(CommandError, match=r"the connection to http://.* broke: "):
        run_load(url, REQUEST, connections=2, duration=5)


def test_a_response_in_chunks_is_read() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    with answering(chunked) as (url, received):
        assert run_load(url, REQUEST, connections=1, duration=0.1).responses
    assert len(received) == 1


def test_noise_has_the_models_shape(call: Call) -> None:
    """A request of another shape would be refused, and nothing of it counted."""
    for model in ("mnist", "mnist-2d", "digits-ae"):
        report = json.loads(call("bench", "decode", "-m", model, "--duration", 0.1, "--json")[1])
        assert np.isfinite(report["latency_ms"]["p50"])
