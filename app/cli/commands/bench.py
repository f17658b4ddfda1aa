"""`vaeserve bench`: throughput and latency of a running server.

The load goes through `http.client` in threads: it takes about 0.1 ms of CPU time per request, httpx2 more than 1 ms.
"""

import asyncio
import http.client
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlencode, urlsplit

import numpy as np
import typer

from app.cli import options
from app.cli.client import ServedVersion, connect
from app.cli.images import print_json
from app.cli.problems import problem_sentence
from app.cli.terminal import table
from app.codecs.npy import NPY, write_npy
from app.errors import CommandError

Operation = Literal["encode", "decode", "reconstruct", "sample"]
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
CELLS = 32
"""Height and width of the latents, in cells, for a model of any size."""
TIMEOUT = 120.0
"""Seconds without a byte of a response after which the load ends."""


class BenchRequest(NamedTuple):
    """A request that is sent repeatedly; `path` includes the query."""

    method: str
    path: str
    body: bytes | None
    headers: dict[str, str]


class BenchResponse(NamedTuple):
    """Latency in seconds, status, and the milliseconds of the server's headers X-Queue-Time and X-Inference-Time."""

    seconds: float
    status: int
    queue: str | None
    inference: str | None


@dataclass
class Load:
    """Measurements of all connections."""

    seconds: float = 0.0
    """Duration of the measurement."""
    responses: list[BenchResponse] = field(default_factory=list)
    refusal: tuple[int, bytes] = 0, b""
    """Status and body of the last response with another status than 200."""

    def report(self, rows: int) -> dict[str, Any]:
        """Rates per second, and times in milliseconds rounded to microseconds; `rows` is rows per request."""
        answered = [response for response in self.responses if response.status == 200]
        milliseconds = [1e3 * response.seconds for response in answered] or [0.0]
        points = np.percentile(milliseconds, list(PERCENTILES.values()))
        return {
            "requests_per_second": round(len(answered) / self.seconds, 1),
            "images_per_second": round(len(answered) * rows / self.seconds, 1),
            "latency_ms": {name: round(float(value), 3) for name, value in zip(PERCENTILES, points, strict=True)},
            "server_queue_time_ms": _median([response.queue for response in answered]),
            "server_inference_time_ms": _median([response.inference for response in answered]),
            "statuses": {str(s): n for s, n in sorted(Counter(response.status for response in self.responses).items())},
        }


def _median(headers: list[str | None]) -> float | None:
    values = [float(value) for value in headers if value is not None]
    return round(float(np.median(values)), 3) if values else None


@dataclass(frozen=True)
class Bench(options.Command):
    """Put load on a running server and measure it.

    Each connection sends its next request when the previous one is answered, so a slow server gets fewer requests (a
    closed loop). Latency is measured by the client; queue and inference are medians of the server's headers
    X-Queue-Time and X-Inference-Time. The client is Python and takes about 0.1 ms of CPU time per request: it bounds
    the rate of small requests, and on the server's own machine the server gets less CPU time. Requests have no seed, so
    no response comes from the server's cache.
    """

    EXAMPLES = (
        ("Encode single digits over 8 connections", "vaeserve bench encode --duration 2"),
        ("64 samples per request, as JSON", "vaeserve bench sample --rows 64 --connections 2 --duration 2 --json"),
    )

    operation: Annotated[Operation, typer.Argument(help="Operation to request, with arrays (npy).")] = "encode"
    rows: Annotated[int, typer.Option(min=1, help="Images or latents per request.")] = 1
    connections: Annotated[int, typer.Option(min=1, max=1000, help="Connections, one request at a time on each.")] = 8
    duration: Annotated[float, typer.Option(min=0.1, help="Duration in seconds.")] = 10.0
    as_json: options.Json = False
    url: options.Url = options.DEFAULT_URL
    api_key: options.ApiKey = None
    model: options.Model = None
    version: options.Version = None

    def run(self) -> None:
        served = asyncio.run(self._served())
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        request = _request(served, self.operation, self.rows, headers)
        load = run_load(self.url, request, self.connections, self.duration)
        report = load.report(self.rows)
        if "200" not in report["statuses"]:
            raise CommandError(f"no request was answered: {problem_sentence(*load.refusal, self.url)}")
        asked = {**served.query, "operation": self.operation, "rows": self.rows, "connections": self.connections}
        report = {**asked, "seconds": round(load.seconds, 2), **report}
        print_json(report) if self.as_json else _show(report)

    async def _served(self) -> ServedVersion:
        async with connect(self.url, self.api_key) as server:
            return await server.served(self.model, self.version)


def _request(served: ServedVersion, operation: Operation, rows: int, headers: dict[str, str]) -> BenchRequest:
    """Return a request of random input: the graphs take as long as for real images."""
    generator, image, latent = np.random.default_rng(0), served.manifest["image"], served.manifest["latent"]
    height, width = (image[side] or CELLS * (latent["stride"] or 1) for side in ("height", "width"))
    query = dict(served.query)
    if operation == "sample":
        query |= {"n": rows, "height": height, "width": width}
        return BenchRequest("GET", f"/sample/npy?{urlencode(query)}", None, headers)
    if operation == "decode":
        cells = [size or CELLS for size in latent["shape"]]
        body = write_npy(generator.standard_normal((rows, *cells), np.float32))
    else:
        body = write_npy(generator.integers(0, 256, (rows, height, width, image["channels"]), np.uint8))
    return BenchRequest("POST", f"/{operation}/npy?{urlencode(query)}", body, {**headers, "Content-Type": NPY})


def run_load(url: str, request: BenchRequest, connections: int, duration: float) -> Load:
    """Send a request repeatedly on each connection to the server at `url`, for `duration` seconds.

    Raises:
        CommandError: the server stops answering.
    """
    base = urlsplit(url)
    host = base.hostname or ""
    kind = http.client.HTTPSConnection if base.scheme == "https" else http.client.HTTPConnection
    request = request._replace(path=base.path.rstrip("/") + request.path)
    load, stop = Load(), threading.Event()

    def send(client: http.client.HTTPConnection) -> tuple[http.client.HTTPResponse, bytes]:
        client.request(*request)
        response = client.getresponse()
        return response, response.read()

    def repeat(client: http.client.HTTPConnection) -> None:
        while (began := time.perf_counter()) < until and not stop.is_set():
            response, body = send(client)
            times = response.getheader("X-Queue-Time"), response.getheader("X-Inference-Time")
            load.responses.append(BenchResponse(time.perf_counter() - began, response.status, *times))
            if response.status != 200:
                load.refusal = response.status, body

    with ExitStack() as stack:
        clients = [stack.enter_context(closing(kind(host, base.port, timeout=TIMEOUT))) for _ in range(connections)]
        pool = stack.enter_context(ThreadPoolExecutor(connections))
        stack.callback(stop.set)  # without it, Ctrl-C would take effect after the duration
        try:
            list(pool.map(send, clients))  # connect before measuring
            until = (start := time.perf_counter()) + duration
            list(pool.map(repeat, clients))
            load.seconds = time.perf_counter() - start
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(f"the connection to {url} broke: {error}") from error
    return load


def _show(report: dict[str, Any]) -> None:
    title = (
        f"{report['operation']} by {report['model']} {report['version']}: rows {report['rows']} a request,"
        f" {report['connections']} connections, {report['seconds']} s"
    )
    latency = ", ".join(f"{name} {value:g}" for name, value in report["latency_ms"].items())
    shown = {
        "requests/s": f"{report['requests_per_second']:,}",
        "images/s": f"{report['images_per_second']:,}",
        "latency, ms": latency,
        "of it queued, ms": _optional(report["server_queue_time_ms"]),
        "of it inference, ms": _optional(report["server_inference_time_ms"]),
        "statuses": ", ".join(f"{status}: {count}" for status, count in report["statuses"].items()),
    }
    table([{"": name, " ": value} for name, value in shown.items()], title=title)


def _optional(value: float | None) -> str:
    return "not sent" if value is None else f"{value:g}"
