"""Measure throughput and latency of the server, compared with a minimal service, a bare ASGI app and ONNX Runtime.

    .venv/bin/python -m bench.serving --help

Starts this server and those of `bench.peers`, each as one process, and puts load on them over loopback with wrk. Sides
alternate within a round; ratios are of the medians over the rounds.
"""

import gzip
import io
import json
import os
import random
import ssl
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import onnxruntime as ort
import typer
from PIL import Image
from rich import print as show
from rich.table import Table

from app.codecs.npy import write_npy
from bench.training import processor

ROOT = Path(__file__).resolve().parent.parent
LUA = Path(__file__).with_name("load.lua")
BULK_ROWS = 256
HEAVY = "mnist"
"""A convolutional model."""
LIGHT = "mnist-2d"
"""A small fully connected model."""


@dataclass
class Load:
    """A request that wrk sends repeatedly."""

    path: str
    body: bytes | None = None
    media_type: str = "application/json"
    file: str = field(init=False)

    def write(self, file: Path) -> None:
        """Write the body to a file for wrk."""
        self.file = str(file)
        file.write_bytes(self.body or b"")


def digits(count: int) -> np.ndarray[Any, Any]:
    """The tests' MNIST digits, uint8 `[count, 28, 28]`, repeated if there are fewer."""
    content = gzip.decompress((ROOT / "tests/data/digits-images-idx3-ubyte.gz").read_bytes())
    return np.resize(np.frombuffer(content, np.uint8, offset=16), (count, 28, 28))


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@contextmanager
def started(
    command: list[str],
    port: int,
    ready: str,
    root: Path = ROOT,
    context: ssl.SSLContext | None = None,
    **environment: str,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, wait until it is ready, and end it afterwards; with `context`, it speaks TLS."""
    url = f"{'http' if context is None else 'https'}://127.0.0.1:{port}{ready}"
    process = subprocess.Popen(command, cwd=root, env=os.environ | environment)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urlopen(url, context=context).close()
                break
            except URLError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{' '.join(command)} did not start") from None
                time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait()


def ours(port: int, **environment: str) -> Any:
    environment = {"VAE_PORT": str(port), "VAE_LOG_LEVEL": "warning"} | environment
    return started([sys.executable, "-m", "app"], port, "/health/ready", **environment)


def peer(name: str, port: int, bundle: str) -> Any:
    command = [sys.executable, "-m", "uvicorn", f"bench.peers:{name}", "--port", str(port), "--log-level", "warning"]
    command += ["--no-access-log", *(["--factory"] if name == "naive" else [])]
    return started(command, port, "/docs" if name == "naive" else "/", PEER_BUNDLE=str(ROOT / "models" / bundle))


def newest(model: str) -> str:
    """The newest bundle of a model, as `name/version`."""
    return f"{model}/{max(int(path.name) for path in (ROOT / 'models' / model).iterdir())}"


def drive(port: int, load: Load, *, connections: int, seconds: float) -> dict[str, float]:
    """Figures of one run of wrk: requests, seconds, rate per second, p50_ms and p99_ms.

    Raises:
        SystemExit: a request failed.
    """
    environment = {} if load.body is None else {"LOAD_BODY": load.file, "LOAD_TYPE": load.media_type}
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds:g}s",
        "-s",
        str(LUA),
        f"http://127.0.0.1:{port}{load.path}",
    ]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if result["failed"]:
        raise SystemExit(f"{load.path}: {result['failed']} of {result['requests']} requests failed")
    return result | {"rate": result["requests"] / result["seconds"]}


def loop(bundle: str, graph: str, rows: np.ndarray[Any, Any], threads: int, seconds: float) -> float:
    """Images per second of ONNX Runtime alone on batches of `rows`: the faster of `threads` sessions of one thread and
    one session of `threads` threads."""

    def session(intra: int) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = intra, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return ort.InferenceSession(ROOT / "models" / bundle / f"{graph}.onnx", options)

    def rate(session: ort.InferenceSession, callers: int) -> float:
        name = session.get_inputs()[0].name
        outputs = ["image"] if graph == "decoder" else ["mean", "log_std"]
        session.run(outputs, {name: rows})

        def run(until: float) -> int:
            count = 0
            while time.perf_counter() < until:
                session.run(outputs, {name: rows})
                count += 1
            return count

        began = time.perf_counter()
        with ThreadPoolExecutor(callers) as pool:
            count = sum(pool.map(run, [began + seconds] * callers))
        return count * len(rows) / (time.perf_counter() - began)

    return max(rate(session(1), threads), rate(session(threads), 1))


def rounds_of(rounds: int, sides: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    results: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, measure in sides.items():
            results[name].append(measure())
    return results


def speeds(rounds: int, seconds: float, loads: dict[str, Load], threads: int) -> Iterator[tuple[str, str, float, str]]:
    """Rows of name, values, ratio and goal."""
    with ExitStack() as stack:
        stack.enter_context(ours(18101))
        stack.enter_context(peer("naive", 18102, newest(LIGHT)))
        stack.enter_context(peer("bare", 18103, newest(LIGHT)))
        port = {"ours": 18101, "naive": 18102, "bare ASGI": 18103}

        def rate(side: str, load: str, connections: int = 32) -> Callable[[], float]:
            return lambda: drive(port[side], loads[load], connections=connections, seconds=seconds)["rate"]

        def latency(side: str, load: str) -> Callable[[], float]:
            return lambda: drive(port[side], loads[load], connections=1, seconds=seconds)["p50_ms"]

        for side in port:
            drive(port[side], loads["encode"], connections=32, seconds=1)
        found = rounds_of(rounds, {side: rate(side, "encode") for side in port})
        for side, goal in (("naive", "5 (4)"), ("bare ASGI", "0.33 (0.25)")):
            yield compared(f"POST /encode, c = 32, requests/s, to {side}", found, side, goal)
        found = rounds_of(rounds, {side: latency(side, "encode") for side in ("ours", "naive")})
        yield compared("POST /encode, c = 1, median ms, to naive", found, "naive", "0.8 at most", digits=2)
        found = rounds_of(rounds, {side: rate(side, "sample") for side in ("ours", "naive")})
        yield compared("GET /sample/image?n=1, c = 32, requests/s, to naive", found, "naive", "5")
        for model in (LIGHT, HEAVY):
            for graph in ("encoder", "decoder"):
                load = f"{graph} {model}"
                rows = np.load(io.BytesIO(loads[load].body or b""))
                rows = rows[:, None] if graph == "encoder" else rows
                sides = {
                    "ours": lambda load=load: BULK_ROWS * rate("ours", load, 4)(),
                    "onnxruntime": lambda model=model, graph=graph, rows=rows: loop(
                        newest(model), graph, rows, threads, seconds
                    ),
                }
                name = f"POST /{graph[:-2]}e/npy of {BULK_ROWS}, {model}, images/s, to ONNX Runtime in a loop"
                yield compared(name, rounds_of(rounds, sides), "onnxruntime", "0.9")


def compared(
    name: str, found: dict[str, list[float]], other: str, goal: str, digits: int = 0
) -> tuple[str, str, float, str]:
    mine, theirs = median(found["ours"]), median(found[other])
    return name, f"{mine:,.{digits}f} to {theirs:,.{digits}f}", mine / theirs, goal


def fairness(rounds: int, seconds: float, loads: dict[str, Load]) -> Iterator[tuple[str, str, float, str]]:
    """99th percentile latency of single requests while bulk requests keep the server busy."""
    with ours(18101):
        for model in (LIGHT, HEAVY):
            idle, busy = [], []
            for _ in range(rounds):
                idle.append(drive(18101, loads["encode"], connections=1, seconds=seconds)["p99_ms"])
                with ThreadPoolExecutor(1) as pool:
                    load = loads[f"decoder {model}"]
                    bulk = pool.submit(drive, 18101, load, connections=2, seconds=seconds + 1)
                    time.sleep(0.5)
                    busy.append(drive(18101, loads["encode"], connections=1, seconds=seconds)["p99_ms"])
                    bulk.result()
            name = f"p99 ms of single /encode under bulk /decode of {model}"
            yield name, f"{median(busy):.2f} to {median(idle):.2f} idle", median(busy) / median(idle), "5, or 25 ms"


def memory(requests: int, loads: dict[str, Load]) -> Iterator[tuple[str, str, float, str]]:
    """Resident memory in MB before, during and after `requests` mixed requests."""
    with ours(18101) as process:
        small = [loads[name] for name in ("encode", "sample")]
        large = [loads[name] for name in (f"decoder {LIGHT}", f"encoder {LIGHT}", "grid")]
        for load in small + large:
            drive(18101, load, connections=8, seconds=2)
        counts, sizes, chooser = [0.0], [resident(process.pid)], random.Random(0)
        while counts[-1] < requests:
            load = chooser.choice(9 * small + large)
            # The queue refuses more rows at once.
            connections = chooser.choice((1, 8, 32) if load in small else (1, 4, 8))
            counts.append(counts[-1] + drive(18101, load, connections=connections, seconds=2)["requests"])
            sizes.append(resident(process.pid))
    later = len(sizes) // 2
    slope = np.polyfit(counts[later:], sizes[later:], 1)[0] * 1e5
    yield (
        f"resident MB after {counts[-1]:,.0f} mixed requests, to before",
        f"{sizes[-1]:.0f} to {sizes[0]:.0f}; {slope:+.2f} for each 100,000 of the second half",
        sizes[-1] / sizes[0],
        "300 MB",
    )


def resident(pid: int) -> float:
    """Resident memory of a process, in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def make_loads() -> dict[str, Load]:
    generator = np.random.default_rng(0)
    body = json.dumps({"images": [b64encode(png(digits(1)[0])).decode()]}).encode()
    loads = {
        "encode": Load(f"/encode?model={LIGHT}", body),
        "sample": Load(f"/sample/image?n=1&model={LIGHT}"),
        "grid": Load(f"/sample/image?n=64&model={LIGHT}&seed=1"),
    }
    images = digits(BULK_ROWS)
    for model, size in ((LIGHT, 2), (HEAVY, 32)):
        latents = generator.standard_normal((BULK_ROWS, size), np.float32)
        loads[f"encoder {model}"] = Load(f"/encode/npy?model={model}", write_npy(images), "application/x-npy")
        loads[f"decoder {model}"] = Load(f"/decode/npy?model={model}", write_npy(latents), "application/x-npy")
    return loads


def main(
    parts: Annotated[list[str] | None, typer.Argument(help="speeds, fairness or memory; all if absent.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    seconds: Annotated[float, typer.Option(min=1, help="Duration of one run of wrk, in seconds.")] = 3,
    requests: Annotated[int, typer.Option(min=1, help="Requests of the part memory.")] = 200_000,
) -> None:
    """Print the measurements beside the goals as a table, and as a line of JSON."""
    threads = len(os.sched_getaffinity(0))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        loads = make_loads()
        for name, load in loads.items():
            load.write(Path(folder) / name)
        known = {
            "speeds": lambda: speeds(rounds, seconds, loads, threads),
            "fairness": lambda: fairness(rounds, seconds, loads),
            "memory": lambda: memory(requests, loads),
        }
        for part in parts or known:
            for row in known[part]():
                print(*row, sep="; ", file=sys.stderr, flush=True)
                rows.append(row)
    table = Table("", "ours to theirs", "ratio", "goal", title=f"{processor()}, {threads} CPUs, {rounds} rounds")
    for name, values, ratio, goal in rows:
        table.add_row(name, values, f"{ratio:.2f}", goal)
    show(table)
    print(json.dumps({"processor": processor(), "cpus": threads, "rounds": rounds, "seconds": seconds, "rows": rows}))


if __name__ == "__main__":
    typer.run(main)
