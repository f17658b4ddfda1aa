"""Measure scaling: throughput of several worker processes and of Ray Serve replicas, and CPU time per request.

`python -m bench.scaling` starts servers with one and two workers, and a Ray cluster with one and two replicas of each
model, and puts load on them over loopback with wrk, in alternating rounds. All share this machine with the client. Then
it measures the server's CPU time for requests of each kind.
"""

import json
import os
import secrets
import sys
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from urllib.request import Request, urlopen

import numpy as np
import typer
import yaml
from rich import print as show
from rich.table import Table

from app.codecs.npy import write_npy
from bench.serving import HEAVY, LIGHT, ROOT, Load, digits, drive, make_loads, ours, png, rounds_of, started
from bench.training import processor

RAY_PORT, COSTS_PORT = 18203, 18204
SIDES = {"1 worker": 18201, "2 workers": 18202, "Ray, 1 replica": RAY_PORT, "Ray, 2 replicas": RAY_PORT}
PREFIXES = {"Ray, 1 replica": "/one", "Ray, 2 replicas": "/two"}
SERVE = "from ray.serve.scripts import cli; cli()"


def application(name: str, replicas: int) -> dict[str, Any]:
    """The configuration of a Ray application: both models, each with `replicas` replicas, below the prefix `/name`."""
    deployments = [
        {"name": model, "num_replicas": replicas, "autoscaling_config": None, "ray_actor_options": {"num_cpus": 0.25}}
        for model in (LIGHT, HEAVY)
    ]
    ingress = {"name": "Ingress", "ray_actor_options": {"num_cpus": 0.1}}
    return {
        "name": name,
        "route_prefix": f"/{name}",
        "import_path": "app.cluster.build:build",
        "args": {"models_dir": str(ROOT / "models"), "models": [LIGHT, HEAVY], "default_model": HEAVY},
        "deployments": [*deployments, ingress],
    }


def cluster(folder: Path) -> Any:
    """Start a Ray cluster on this machine with both applications."""
    config = {
        "http_options": {"host": "127.0.0.1", "port": RAY_PORT},
        "logging_config": {"enable_access_log": False},
        "applications": [application("one", 1), application("two", 2)],
    }
    (folder / "serve.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-c", SERVE, "run", str(folder / "serve.yaml")]
    token = secrets.token_hex(32)  # without it Ray writes one to the home directory
    return started(command, RAY_PORT, "/two/health/ready", RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_TOKEN=token)


def loads() -> dict[str, Load]:
    """A small request to the light model, and one of 256 rows to the heavy model; eight of these fit into the queue."""
    score = Load(f"/score/npy?model={HEAVY}&k=16&seed=1", write_npy(digits(16)), "application/x-npy")
    return {"encode": make_loads()["encode"], "score": score}


def speeds(rounds: int, seconds: float, folder: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Title of each measurement, and its median for each side."""
    known = loads()
    for name, load in known.items():
        load.write(folder / name)

    def measure(side: str, load: str, connections: int, key: str) -> Callable[[], float]:
        sent = Load(PREFIXES.get(side, "") + known[load].path, known[load].body, known[load].media_type)
        sent.file = known[load].file
        return lambda: drive(SIDES[side], sent, connections=connections, seconds=seconds)[key]

    with ExitStack() as stack:
        for side, workers in (("1 worker", 1), ("2 workers", 2)):
            stack.enter_context(ours(SIDES[side], VAE_WORKERS=str(workers)))
        stack.enter_context(cluster(folder))
        for name, *asked in (
            ("POST /encode of one digit, light model, 1 connection, median ms", "encode", 1, "p50_ms"),
            ("the same, 32 connections, requests/s", "encode", 32, "rate"),
            ("POST /score of 16 digits, k = 16, heavy model, 8 connections, requests/s", "score", 8, "rate"),
        ):
            sides = {side: measure(side, *asked) for side in SIDES}
            for warm in sides.values():
                warm()
            yield name, {side: median(values) for side, values in rounds_of(rounds, sides).items()}


def work(model: str, latent: int) -> dict[str, Load]:
    """Requests to a model in usual sizes."""
    image = json.dumps({"images": [b64encode(png(digits(1)[0])).decode()]}).encode()
    latents = np.random.default_rng(0).standard_normal((256, latent), np.float32)
    return {
        "`POST /encode`, 1 digit": Load(f"/encode?model={model}", image),
        "`GET /sample/image`, 1 digit": Load(f"/sample/image?model={model}"),
        "`GET /sample/image`, 64 digits": Load(f"/sample/image?model={model}&n=64"),
        "`POST /score`, 1 digit, k = 128": Load(f"/score?model={model}&k=128", image),
        "`POST /encode/npy`, 256 digits": Load(
            f"/encode/npy?model={model}", write_npy(digits(256)), "application/x-npy"
        ),
        "`POST /decode/npy`, 256 latents": Load(f"/decode/npy?model={model}", write_npy(latents), "application/x-npy"),
    }


def cpu_seconds(pid: int) -> float:
    """CPU seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def size(port: int, load: Load) -> int:
    """Bytes of a request's body and of its response's body together."""
    request = Request(f"http://127.0.0.1:{port}{load.path}", load.body, {"Content-Type": load.media_type})
    with urlopen(request) as answer:
        return len(load.body or b"") + len(answer.read())


def costs(rounds: int, seconds: float, folder: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """CPU milliseconds of the server per request, at 8 connections, and bytes of the bodies.

    Other processes on this machine hardly change these figures.
    """
    with ours(COSTS_PORT) as process:
        for model, latent in ((LIGHT, 2), (HEAVY, 32)):
            for name, load in work(model, latent).items():
                load.write(folder / "load")
                drive(COSTS_PORT, load, connections=8, seconds=1)
                found = []
                for _ in range(rounds):
                    before = cpu_seconds(process.pid)
                    requests = drive(COSTS_PORT, load, connections=8, seconds=seconds)["requests"]
                    found.append(1e3 * (cpu_seconds(process.pid) - before) / requests)
                yield f"{name}, {model}", {"CPU ms": median(found), "bytes": size(COSTS_PORT, load)}


def shown_speeds(rows: dict[str, dict[str, float]], title: str) -> Table:
    """A table of speeds; in brackets the ratio to one worker."""
    table = Table("", *SIDES, title=f"{title}; in brackets to 1 worker")
    for name, values in rows.items():
        base = values["1 worker"]
        table.add_row(name, *(f"{value:,.4g} ({value / base:.2g})" for value in values.values()))
    return table


def shown_costs(rows: dict[str, dict[str, float]], title: str) -> Table:
    """A table of costs, with the requests per second that one CPU can answer."""
    table = Table("", "CPU ms", "requests/s a CPU", "bytes", title=title)
    for name, values in rows.items():
        table.add_row(name, f"{values['CPU ms']:.3g}", f"{1e3 / values['CPU ms']:,.0f}", f"{values['bytes']:,.0f}")
    return table


def main(
    parts: Annotated[list[str] | None, typer.Argument(help="speeds or costs; both if absent.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(min=1, help="Duration of one run of wrk, in seconds.")] = 3,
) -> None:
    """Print the measurements as tables and as a line of JSON."""
    cpus = len(os.sched_getaffinity(0))
    title, found = f"{processor()}, {cpus} CPUs, {rounds} rounds", {}
    known = {"speeds": (speeds, shown_speeds), "costs": (costs, shown_costs)}
    with tempfile.TemporaryDirectory() as folder:
        for part in parts or known:
            measured, shown = known[part]
            found[part] = dict(measured(rounds, seconds, Path(folder)))
            show(shown(found[part], title))
    print(json.dumps({"processor": processor(), "cpus": cpus, "rounds": rounds, "seconds": seconds, **found}))


if __name__ == "__main__":
    typer.run(main)
