"""How long the server takes from its command to /health/ready, and what memory it holds then.

    .venv/bin/python bench/startup.py

Prints the median of several starts on the shipped bundles, one process, and the resident memory after the last.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 7
PORT = 18080


def start() -> tuple[float, float]:
    """Seconds to ready, and resident memory in MB two seconds later."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "app"],
        cwd=ROOT,
        env={**os.environ, "VAE_PORT": str(PORT), "VAE_LOG_LEVEL": "warning"},
    )
    try:
        while True:
            try:
                urlopen(f"http://127.0.0.1:{PORT}/health/ready").close()
                break
            except URLError:
                time.sleep(0.005)
        seconds = time.perf_counter() - began
        time.sleep(2)
        return seconds, resident_megabytes(process.pid)
    finally:
        process.terminate()
        process.wait()


def resident_megabytes(pid: int) -> float:
    return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(pid)])) * 1024 / 1e6


def main() -> None:
    rounds = [start() for _ in range(ROUNDS)]
    for name, unit, values in zip(("ready after", "resident"), ("s", "MB"), zip(*rounds, strict=True), strict=True):
        print(f"{name}: median {statistics.median(values):.2f} {unit}, {min(values):.2f} to {max(values):.2f}")


main()
