"""`vaeserve bench`: throughput and latency of a running server."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
import typer

from app.cli import options
from app.cli.client import Query, ServedVersion, ServerClient, connect
from app.cli.images import print_json
from app.cli.terminal import table
from app.codecs.npy import NPY, write_npy
from app.errors import CommandError

EXAMPLES = (
    ("Encode single digits over 8 connections", "vaeserve bench encode --duration 2"),
    ("64 samples per request, as JSON", "vaeserve bench sample --rows 64 --connections 2 --duration 2 --json"),
)
Operation = Literal["encode", "decode", "reconstruct", "sample"]
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
CELLS = 32
"""Height and width of the latents, in cells, for a model of any size."""
TIME_HEADERS = {"server_queue_time_ms": "X-Queue-Time", "server_inference_time_ms": "X-Inference-Time"}


@dataclass
class Load:
    """Measurements of all connections."""

    seconds: float = 0.0
    """Duration of the measurement."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of each request with status 200."""
    server_times: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in TIME_HEADERS})
    """Milliseconds in the server's headers of the same requests."""
    statuses: Counter[int] = field(default_factory=Counter)
    refusal: str = ""
    """One sentence about the last error response."""

    def add(self, seconds: float, headers: Mapping[str, str]) -> None:
        """Count a response with status 200."""
        self.statuses[200] += 1
        self.latencies.append(seconds)
        for name, header in TIME_HEADERS.items():
            if (value := headers.get(header)) is not None:
                self.server_times[name].append(float(value))

    def report(self, rows: int) -> dict[str, Any]:
        """Rates per second, and times in milliseconds rounded to microseconds; `rows` is rows per request."""
        answered, milliseconds = len(self.latencies), 1e3 * np.array(self.latencies)
        points = np.percentile(milliseconds, list(PERCENTILES.values())) if answered else np.zeros(len(PERCENTILES))
        medians = {name: float(np.median(values)) if values else None for name, values in self.server_times.items()}
        return {
            "requests_per_second": round(answered / self.seconds, 1),
            "images_per_second": round(answered * rows / self.seconds, 1),
            "latency_ms": {name: round(float(value), 3) for name, value in zip(PERCENTILES, points, strict=True)},
            **{name: None if value is None else round(value, 3) for name, value in medians.items()},
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
        }


async def bench(
    operation: Annotated[Operation, typer.Argument(help="Operation to request, with arrays (npy).")] = "encode",
    rows: Annotated[int, typer.Option(min=1, help="Images or latents per request.")] = 1,
    connections: Annotated[int, typer.Option(min=1, max=1000, help="Connections, each with one request.")] = 8,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds.")] = 10.0,
    as_json: options.Json = False,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
    model: options.Model = None,
    version: options.Version = None,
) -> None:
    """Put load on a running server and measure it.

    Each connection sends its next request when the previous one is answered, so a slow server gets fewer requests (a
    closed loop). Latency is measured by the client; queue and inference are medians of the server's headers
    X-Queue-Time and X-Inference-Time. The client is Python and takes about CLIENT_COST ms of CPU time per request:
    it bounds the rate of small requests, and on the server's own machine the server gets less. Requests have no seed,
    so no response comes from the server's cache.
    """
    async with connect(url, api_key, None, model, version) as server:
        served = await server.served()
        load = await run_load(server, _request(served, operation, rows), connections, duration)
    if not load.latencies:
        raise CommandError(f"no request was answered: {load.refusal}")
    asked = {"model": served.name, "version": served.version, "operation": operation, "rows": rows}
    report = {**asked, "connections": connections, "seconds": round(load.seconds, 2), **load.report(rows)}
    print_json(report) if as_json else _show(report)


def _request(served: ServedVersion, operation: Operation, rows: int) -> dict[str, Any]:
    """Arguments of `ServerClient.send_once`. The input is random: the graphs take as long as for real images."""
    query: Query = dict(served.query)
    generator = np.random.default_rng(0)
    height, width = served.size or (CELLS * served.stride, CELLS * served.stride)
    if operation == "sample":
        query |= {"n": rows} if served.size else {"n": rows, "height": height, "width": width}
        return {"method": "GET", "path": "sample/npy", "query": query}
    if operation == "decode":
        latent = [size or CELLS for size in served.manifest["latent"]["shape"]]
        body = write_npy(generator.standard_normal((rows, *latent), np.float32))
    else:
        channels = served.manifest["image"]["channels"]
        body = write_npy(generator.integers(0, 256, (rows, height, width, channels), np.uint8))
    headers = {"Content-Type": NPY}
    return {"method": "POST", "path": f"{operation}/npy", "query": query, "content": body, "headers": headers}


async def run_load(server: ServerClient, request: dict[str, Any], connections: int, duration: float) -> Load:
    """Send a request again and again on each connection, for `duration` seconds.

    Raises:
        CommandError: the server stops answering.
    """
    load = Load()
    await asyncio.gather(*(server.send_once(**request) for _ in range(connections)))  # connect before measuring
    began = time.perf_counter()
    await asyncio.gather(*(_repeat(server, request, load, began + duration) for _ in range(connections)))
    load.seconds = time.perf_counter() - began
    return load


async def _repeat(server: ServerClient, request: dict[str, Any], load: Load, until: float) -> None:
    while (began := time.perf_counter()) < until:
        response = await server.send_once(**request)
        if response.status_code == 200:
            load.add(time.perf_counter() - began, response.headers)
        else:
            load.statuses[response.status_code] += 1
            load.refusal = server.problem(response)


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
        ["of it queued, ms", _optional(report["server_queue_time_ms"])],
        ["of it inference, ms", _optional(report["server_inference_time_ms"])],
        ["statuses", ", ".join(f"{status}: {count}" for status, count in report["statuses"].items())],
    ]
    table(title, {"": "left", " ": "left"}, rows)


def _optional(value: float | None) -> str:
    return "not sent" if value is None else f"{value:g}"
