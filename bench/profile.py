"""Where the time of a small request goes: the server's CPU time a request, by the code that spent it.

    .venv/bin/pip install -c constraints.txt -e '.[cpu,bench]'
    .venv/bin/python -m bench.profile encode

Starts the server, drives it with wrk, and samples its stacks with py-spy meanwhile. What is called through C (a system
call of uvicorn's, zlib's work for images.py) counts for the Python code that called it.
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
    "HTTP: uvicorn and its system calls": r"uvicorn/|app/protocol|app/transport|app/offers",
    "event loop, threads": r"asyncio/|uvloop|_weakrefset|contextlib|concurrent/|threading|queue",
    "FastAPI, Starlette, anyio": r"fastapi/|starlette/|anyio/|multipart/|email/|http/",
    "JSON and its schema: pydantic": r"pydantic|json/|base64|<string>",
    "operations: app/api": r"app/api/",
    "metrics and limits": r"app/metrics|app/watch|app/logs|app/limits|prometheus_client",
    "pictures: app/codecs/images.py and Pillow": r"app/images|PIL/|zlib",
    "draws: app/maths/gaussian.py": r"app/gaussian",
    "batcher": r"app/batcher|app/graphs|app/vae|app/timing",
    "inference: ONNX Runtime": r"onnxruntime|app/session",
}
"""What a layer is called, and the files that are its own; the first that fits counts."""
RATE = 500
"""Samples a second."""


def layer(frame: str) -> str:
    """The layer that a sampled frame, `function (file:line)`, belongs to."""
    path = frame.rpartition("(")[2]
    return next((name for name, pattern in LAYERS.items() if re.search(pattern, path)), "other")


def sample(pid: int, seconds: int, folder: Path) -> Counter[str]:
    """Seconds of CPU time by layer."""
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
    load: Annotated[str, typer.Argument(help="encode or sample, of one digit by mnist-2d.")] = "encode",
    seconds: Annotated[int, typer.Option(min=2)] = 10,
    connections: Annotated[int, typer.Option(min=1)] = 32,
    root: Annotated[Path, typer.Option(help="The checkout whose server is measured.")] = ROOT,
) -> None:
    """Print microseconds of CPU time a request, layer by layer."""
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
    table = Table("layer", "us a request", title=f"{load}, c = {connections}, {rate:,.0f} requests/s, {processor()}")
    requests = rate * seconds
    for name in (*LAYERS, "other"):
        table.add_row(name, f"{1e6 * spent[name] / RATE / requests:.1f}")
    table.add_row("together", f"{1e6 * spent.total() / RATE / requests:.1f}")
    show(table)


if __name__ == "__main__":
    typer.run(main)
