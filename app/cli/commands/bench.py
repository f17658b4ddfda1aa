"""`vaeserve bench`: how much a running server answers, and how fast."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import numpy as np
import typer

from app.cli.client import Served, connect
from app.cli.connection import Connection, Headers, Request
from app.cli.options import Address, Json, Which, command
from app.cli.pictures import print_json
from app.cli.terminal import table
from app.cli.words import in_words
from app.codecs.npy import NPY, write_npy
from app.errors import CommandError

EXAMPLES = (
    ("Encode single digits over 8 connections", "vaeserve bench encode --duration 2"),
    ("Bulk: 64 samples a request, as JSON", "vaeserve bench sample --rows 64 --connections 2 --duration 2 --json"),
)
Operation = Literal["encode", "decode", "reconstruct", "sample"]
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
CELLS = 32
"""Of a map along each side, where any size will do."""
TIMES = ("x-queue-time", "x-inference-time")


@dataclass
class Load:
    """What was seen, of all connections."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """Seconds of each answer with status 200,"""
    times: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in TIMES})
    """and milliseconds of it by the server's own account."""
    statuses: Counter[int] = field(default_factory=Counter)
    refusal: bytes = b""

    def add(self, seconds: float, status: int, headers: Headers, body: bytes) -> None:
        """Count one answer."""
        self.statuses[status] += 1
        if status != 200:
            self.refusal = body
            return
        self.latencies.append(seconds)
        for name, values in self.times.items():
            if (value := headers.get(name.encode())) is not None:
                values.append(float(value))

    def report(self, rows: int) -> dict[str, Any]:
        """The figures, milliseconds rounded to microseconds."""
        answered, milliseconds = len(self.latencies), 1e3 * np.array(self.latencies)
        points = np.percentile(milliseconds, list(PERCENTILES.values())) if answered else np.zeros(len(PERCENTILES))
        medians = {name.replace("x-", "server_").replace("-", "_"): values for name, values in self.times.items()}
        return {
            "requests_per_second": round(answered / self.seconds, 1),
            "images_per_second": round(answered * rows / self.seconds, 1),
            "latency_ms": {name: round(float(value), 3) for name, value in zip(PERCENTILES, points, strict=True)},
            **{
                f"{name}_ms": round(float(np.median(values)), 3) if values else None for name, values in medians.items()
            },
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
        }


@command
async def bench(
    address: Address,
    which: Which,
    operation: Annotated[Operation, typer.Argument(help="What is asked for, in arrays (npy).")] = "encode",
    rows: Annotated[int, typer.Option(min=1, help="Images or latents a request.")] = 1,
    connections: Annotated[int, typer.Option(min=1, max=1000, help="Connections, each with one request.")] = 8,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds.")] = 10.0,
    as_json: Json = False,
) -> None:
    """Put load on a running server, and measure it.

    Each connection sends its next request when the last is answered, so a slow server is asked less (a closed loop).
    Latency is what the client sees; queue and inference are medians of what the server says in X-Queue-Time and
    X-Inference-Time. The client is Python and takes a CPU itself: on the server's own machine the server gets less, and
    small requests are bounded by the client. Requests have no seed, so nothing comes from the server's cache.
    """
    async with connect(address.url, None, address.api_key, which.model, which.version) as server:
        served = await server.served()
    request = _request(address, served, operation, rows)
    load = await run_load(request, connections, duration)
    if not load.latencies:
        status, _ = load.statuses.most_common(1)[0]
        raise CommandError(f"no request was answered: {in_words(status, load.refusal, address.url)}")
    asked = {"model": served.name, "version": served.version, "operation": operation, "rows": rows}
    report = {**asked, "connections": connections, "seconds": round(load.seconds, 2), **load.report(rows)}
    print_json(report) if as_json else _show(report)


def _request(address: Address, served: Served, operation: Operation, rows: int) -> Request:
    """Noise is as good as digits: the graphs take as long."""
    query, generator = dict(served.query), np.random.default_rng(0)
    height, width = served.size or (CELLS * served.stride, CELLS * served.stride)
    if operation == "sample":
        query |= {"n": rows} if served.size else {"n": rows, "height": height, "width": width}
        return Request.of(address.url, address.api_key, "GET", f"/sample/npy?{urlencode(query)}")
    if operation == "decode":
        latent = [size or CELLS for size in served.manifest["latent"]["shape"]]
        body = write_npy(generator.standard_normal((rows, *latent), np.float32))
    else:
        channels = served.manifest["image"]["channels"]
        body = write_npy(generator.integers(0, 256, (rows, height, width, channels), np.uint8))
    path = f"/{operation}/npy?{urlencode(query)}"
    return Request.of(address.url, address.api_key, "POST", path, body, NPY)


async def run_load(request: Request, connections: int, duration: float) -> Load:
    """Send a request over and over on each of some connections, for so many seconds.

    Raises:
        CommandError: the server goes away.
    """
    load, kept = Load(), [Connection(request) for _ in range(connections)]
    try:
        await asyncio.gather(*(connection.send() for connection in kept))  # connected and warm before the clock starts
        began = time.perf_counter()
        await asyncio.gather(*(_ask(connection, load, began + duration) for connection in kept))
        load.seconds = time.perf_counter() - began
    except OSError as error:
        raise CommandError(f"the connection to the server broke: {error.strerror or error}") from error
    finally:
        for connection in kept:
            connection.close()
    return load


async def _ask(connection: Connection, load: Load, until: float) -> None:
    while (began := time.perf_counter()) < until:
        status, headers, body = await connection.send()
        load.add(time.perf_counter() - began, status, headers, body)


def _show(report: dict[str, Any]) -> None:
    title = (
        f"{report['operation']} by {report['model']} {report['version']}: rows {report['rows']} a request,"
        f" {report['connections']} connections, {report['seconds']} s"
    )
    latency = ", ".join(f"{name} {value:g}" for name, value in report["latency_ms"].items())
    rows = [
        ["requests/s", f"{report['requests_per_second']:,}"],
        ["images/s", f"{report['images_per_second']:,}"],
        ["latency, ms", latency],
        ["of it queued, ms", _known(report["server_queue_time_ms"])],
        ["of it inference, ms", _known(report["server_inference_time_ms"])],
        ["statuses", ", ".join(f"{status}: {count}" for status, count in report["statuses"].items())],
    ]
    table(title, {"": "left", " ": "left"}, rows)


def _known(value: float | None) -> str:
    return "not told" if value is None else f"{value:g}"
