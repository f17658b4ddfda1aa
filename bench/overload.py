"""Measure the server under overload: many times the request rate that it can sustain, for a minute.

    .venv/bin/python -m bench.overload --help

Starts the server on the shipped bundles, measures how many `/score` requests with k = 128 it answers per second (closed
loop), then sends a multiple of that rate (open loop). Reports the latency of answered and of refused requests and of
`/health/live`, the recovery time, and memory.
"""

import json
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer
from rich import print as show
from rich.table import Table

from bench.arrivals import LOST, Outcome, Target, generators, http, keep_asking, offer
from bench.serving import digits, png, resident, started

PORT = 18090
K = 128
CLIENTS = 16
"""Clients of the closed loop."""
RECOVERED = 2.0
"""The server has recovered when requests take at most this many times the median latency before the overload."""


@dataclass(frozen=True)
class Times:
    """Latencies of requests, in seconds."""

    count: int
    median: float
    p99: float
    max: float

    @classmethod
    def of(cls, outcomes: list[Outcome], *statuses: int) -> "Times":
        """Latencies of the outcomes with one of these statuses; NaN if there are none."""
        seconds = np.array([outcome.seconds for outcome in outcomes if outcome.status in statuses] or [np.nan])
        count = sum(outcome.status in statuses for outcome in outcomes)
        return cls(count, float(np.median(seconds)), float(np.quantile(seconds, 0.99)), float(seconds.max()))

    def __str__(self) -> str:
        return f"{1e3 * self.median:.0f} / {1e3 * self.p99:.0f} / {1e3 * self.max:.0f} ms"


@dataclass(frozen=True)
class Report:
    """Measurements of one overload."""

    rate: float
    """Sustainable rate: responses per second in the closed loop."""
    offered: int
    seconds: float
    before: Times
    accepted: Times
    refused: Times
    health: Times
    lost: int
    unexpected: list[int]
    """Statuses other than 200 and 503."""
    recovery: float
    """Seconds after the last request was sent until latency is back to normal."""
    memory: tuple[float, float, float]
    """Resident memory in MB: before, maximum, afterwards."""

    @property
    def goodput(self) -> float:
        """Responses per second, as a share of the sustainable rate."""
        return self.accepted.count / self.seconds / self.rate


def score_request(k: int = K) -> bytes:
    """A request that scores one digit with the model `mnist`."""
    body = json.dumps({"images": [b64encode(png(digits(1)[0])).decode()]}).encode()
    return http("POST", f"/score?model=mnist&k={k}&seed=1", body)


def overload(port: int, pid: int, *, times: float, seconds: float, sustain: float = 5) -> Report:
    """Send `times` the sustainable rate, which is measured for `sustain` seconds first, to an otherwise idle server."""
    target, live = (Target("127.0.0.1", port, request) for request in (score_request(), http("GET", "/health/live")))
    with generators(3) as pool:
        idle = resident(pid)
        for warming in [pool.submit(keep_asking, target, CLIENTS // 2, 1.0) for _ in range(3)]:
            warming.result()
        steady = pool.submit(keep_asking, target, CLIENTS, sustain).result()
        rate = sum(outcome.status == 200 for outcome in steady) / max(o.due + o.seconds for o in steady)
        before = Times.of(pool.submit(keep_asking, target, 1, sustain / 2).result(), 200)
        offering = pool.submit(offer, target, times * rate, seconds)
        probing = pool.submit(offer, live, 10, seconds)
        highest = _highest(lambda: resident(pid), seconds)
        recovery = pool.submit(until_usual, target, before.median).result()
        outcomes = offering.result()
        return Report(
            rate=rate,
            offered=len(outcomes),
            seconds=seconds,
            before=before,
            accepted=Times.of(outcomes, 200),
            refused=Times.of(outcomes, 503),
            health=Times.of(probing.result(), 200),
            lost=sum(outcome.status == LOST for outcome in outcomes + probing.result()),
            unexpected=[outcome.status for outcome in outcomes if outcome.status not in (200, 503, LOST)],
            recovery=recovery,
            memory=(idle, highest, resident(pid)),
        )


def _highest(look: Callable[[], float], seconds: float) -> float:
    """The highest value of `look()` during `seconds`."""
    highest, until = look(), time.perf_counter() + seconds
    while time.perf_counter() < until:
        time.sleep(0.1)
        highest = max(highest, look())
    return highest


def until_usual(target: Target, usual: float) -> float:
    """Seconds until ten requests in a row have normal latency; infinity after a minute."""
    began, in_a_row = time.perf_counter(), 0
    while (now := time.perf_counter() - began) < 60:
        outcome = keep_asking(target, 1, 1e-3)[0]
        is_usual = outcome.status == 200 and outcome.seconds < RECOVERED * usual + 0.01
        in_a_row = in_a_row + 1 if is_usual else 0
        if in_a_row == 10:
            return now
    return float("inf")


def main(
    times: Annotated[float, typer.Option(help="Multiple of the sustainable rate.")] = 50,
    seconds: Annotated[float, typer.Option(help="Duration of the overload, in seconds.")] = 60,
    workers: Annotated[int, typer.Option(help="Server processes.")] = 1,
) -> None:
    command = [sys.executable, "-m", "app"]
    environment = {"VAE_PORT": str(PORT), "VAE_LOG_LEVEL": "warning", "VAE_WORKERS": str(workers)}
    with started(command, PORT, "/health/ready", **environment) as process:
        report = overload(PORT, process.pid, times=times, seconds=seconds)
    table = Table("", "", title=f"/score, k = {K}, offered {times:g} times the sustainable rate for {seconds:g} s")
    for name, value in (
        ("sustainable", f"{report.rate:.1f} a second"),
        ("offered", f"{report.offered / seconds:.0f} a second"),
        ("answered", f"{report.accepted.count / seconds:.1f} a second, {report.goodput:.2f} of the sustainable rate"),
        ("latency before: median / p99 / max", f"{report.before}"),
        ("latency of answered requests", f"{report.accepted}"),
        ("latency of refused requests", f"{report.refused}"),
        ("latency of /health/live", f"{report.health}"),
        ("without response; other statuses", f"{report.lost}; {len(report.unexpected)}"),
        ("recovered after", f"{report.recovery:.1f} s"),
        ("memory before / max / after", " / ".join(f"{value:.0f}" for value in report.memory) + " MB"),
    ):
        table.add_row(name, value)
    show(table)


if __name__ == "__main__":
    typer.run(main)
