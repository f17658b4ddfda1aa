"""What becomes of the server at many times the rate that it can sustain, for a minute.

    .venv/bin/python -m bench.overload --help

Starts ours on the shipped bundles, measures how many requests of `/score` with k = 128 it answers a second (a closed
loop), then offers a multiple of that (an open loop), and looks at those who are answered, those who are refused, at
`/health/live`, at what is left when it is over, and at memory.
"""

import json
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich import print as show
from rich.table import Table

from bench.arrivals import LOST, Outcome, Target, generators, http, keep_asking, offer
from bench.serving import digits, png, started

PORT = 18090
K = 128
CLIENTS = 16
"""Of the closed loop."""
USUAL = 2.0
"""Times the median latency before, up to which a request is answered as before."""


@dataclass(frozen=True)
class Times:
    """Seconds that requests took."""

    count: int
    median: float
    p99: float
    longest: float

    @classmethod
    def of(cls, outcomes: list[Outcome], *statuses: int) -> "Times":
        """Of those with one of these statuses; NaN where there are none."""
        seconds = np.array([outcome.seconds for outcome in outcomes if outcome.status in statuses] or [np.nan])
        count = sum(outcome.status in statuses for outcome in outcomes)
        return cls(count, float(np.median(seconds)), float(np.quantile(seconds, 0.99)), float(seconds.max()))

    def __str__(self) -> str:
        return f"{1e3 * self.median:.0f} / {1e3 * self.p99:.0f} / {1e3 * self.longest:.0f} ms"


@dataclass(frozen=True)
class Report:
    """What was seen."""

    rate: float
    """Requests a second that a closed loop is answered."""
    offered: int
    seconds: float
    before: Times
    accepted: Times
    refused: Times
    health: Times
    lost: int
    strange: list[int]
    """Statuses that are neither 200 nor 503."""
    recovery: float
    """Seconds after the last arrival until requests are answered as before."""
    memory: tuple[float, float, float]
    """MB before, at most, and afterwards."""

    @property
    def goodput(self) -> float:
        """Requests answered a second, as a share of the sustainable rate."""
        return self.accepted.count / self.seconds / self.rate


def score_request(k: int = K) -> bytes:
    """A digit to be scored on the default model."""
    body = json.dumps({"images": [b64encode(png(digits(1)[0])).decode()]}).encode()
    return http("POST", f"/score?model=mnist&k={k}&seed=1", body)


def resident(pid: int) -> float:
    """MB of memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


def overload(port: int, pid: int, *, times: float, seconds: float, sustain: float = 5) -> Report:
    """Offer `times` the sustainable rate, which is measured for `sustain` seconds, to a server that has nothing else
    to do."""
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
        most = _highest(lambda: resident(pid), seconds)
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
            strange=[outcome.status for outcome in outcomes if outcome.status not in (200, 503, LOST)],
            recovery=recovery,
            memory=(idle, most, resident(pid)),
        )


def _highest(look: Callable[[], float], seconds: float) -> float:
    """The highest value in so many seconds."""
    highest, until = look(), time.perf_counter() + seconds
    while time.perf_counter() < until:
        time.sleep(0.1)
        highest = max(highest, look())
    return highest


def until_usual(target: Target, usual: float) -> float:
    """Seconds from now until requests are answered as usual: ten in a row; infinity after a minute."""
    began, in_a_row = time.perf_counter(), 0
    while (now := time.perf_counter() - began) < 60:
        outcome = keep_asking(target, 1, 1e-3)[0]
        is_usual = outcome.status == 200 and outcome.seconds < USUAL * usual + 0.01
        in_a_row = in_a_row + 1 if is_usual else 0
        if in_a_row == 10:
            return now
    return float("inf")


def main(
    times: Annotated[float, typer.Option(help="How many times the sustainable rate is offered.")] = 50,
    seconds: Annotated[float, typer.Option(help="For how long.")] = 60,
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
        ("latency before: median / p99 / longest", f"{report.before}"),
        ("latency of those that are answered", f"{report.accepted}"),
        ("time until a refusal", f"{report.refused}"),
        ("/health/live meanwhile", f"{report.health}"),
        ("lost; answered otherwise", f"{report.lost}; {len(report.strange)}"),
        ("as before again after", f"{report.recovery:.1f} s"),
        ("memory before / most / after", " / ".join(f"{value:.0f}" for value in report.memory) + " MB"),
    ):
        table.add_row(name, value)
    show(table)


if __name__ == "__main__":
    typer.run(main)
