"""Profile small requests: the server's CPU time per request, by the code that spent it.

    .venv/bin/pip install -c constraints.txt -e '.[cpu,bench]'
    .venv/bin/python -m bench.profile encode

Starts the server, puts load on it with wrk, and samples its stacks with py-spy. Time in C code (a system call, zlib)
counts for the Python code that called it.
"""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
from rich import print as show
from rich.table import Table

from bench.serving import ROOT, drive, make_loads, processor, started

LAYERS = {
    "HTTP: uvicorn and its system calls": r"uvicorn/|app/server/",
    "event loop, threads": r"asyncio/|uvloop|_weakrefset|contextlib|concurrent/|threading|queue",
    "FastAPI, Starlette, anyio": r"fastapi/|starlette/|anyio/|multipart/|email/|http/",
    "JSON and its schema: pydantic": r"pydantic|json/|base64|<string>",
    "metrics, logs and middleware": r"app/api/middleware/|app/metrics/|app/observability/|prometheus_client",
    "operations: app/api": r"app/api/",
    "images: app/codecs and Pillow": r"app/codecs/|PIL/|zlib",
    "draws: app/maths": r"app/maths/",
    "inference: ONNX Runtime": r"onnxruntime|app/inference/session",
    "batcher": r"app/inference/|app/vae/",
}
"""Layers by name, each with a pattern for its files; the first pattern that matches counts."""
RATE = 500
"""Stack samples per second."""


def layer(frame: str) -> str:
    """The layer of a sampled frame, `function (file:line)`."""
    path = frame.rpartition("(")[2]
    return next((name for name, pattern in LAYERS.items() if re.search(pattern, path)), "other")


def sample(pid: int, seconds: int, folder: Path) -> Counter[str]:
    """Stack samples by layer."""
    file = folder / "stacks"
    command = ["py-spy", "record", "--nonblocking", "--rate", str(RATE), "--duration", str(seconds)]
    command += ["--format", "raw", "--output", str(file), "--pid", str(pid)]
    subprocess.run([Path(sys.executable).parent / command[0], *command[1:]], check=True, capture_output=True)
    spent: Counter[str] = Counter()
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        spent[layer(stack.split(";")[-1])] += int(count)
    return spent


def main(
    load: Annotated[str, typer.Argument(help="encode or sample: one digit with mnist-2d.")] = "encode",
    seconds: Annotated[int, typer.Option(min=2)] = 10,
    connections: Annotated[int, typer.Option(min=1)] = 32,
    root: Annotated[Path, typer.Option(help="The checkout to measure.")] = ROOT,
) -> None:
    """Print microseconds of CPU time per request by layer."""
    with tempfile.TemporaryDirectory() as folder:
        loads = make_loads()
        loads[load].write(Path(folder) / load)
        environment = {"VAE_PORT": "18101", "VAE_LOG_LEVEL": "warning", "VAE_MODELS_DIR": str(ROOT / "models")}
        with started([sys.executable, "-m", "app"], 18101, "/health/ready", root=root, **environment) as process:
            drive(18101, loads[load], connections=connections, seconds=2)
            with ThreadPoolExecutor(1) as pool:
                driven = pool.submit(drive, 18101, loads[load], connections=connections, seconds=seconds + 2)
                spent = sample(process.pid, seconds, Path(folder))
                rate = driven.result()["rate"]
    table = Table("layer", "us per request", title=f"{load}, c = {connections}, {rate:,.0f} requests/s, {processor()}")
    requests = rate * seconds
    for name in (*LAYERS, "other"):
        table.add_row(name, f"{1e6 * spent[name] / RATE / requests:.1f}")
    table.add_row("together", f"{1e6 * spent.total() / RATE / requests:.1f}")
    show(table)


if __name__ == "__main__":
    typer.run(main)
