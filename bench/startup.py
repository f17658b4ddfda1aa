"""Measure the seconds from the server's command until /health/ready answers 200, and its resident memory then.

    .venv/bin/python -m bench.startup

Prints the median of several starts of one process on the shipped bundles.
"""

import statistics
import time

from bench.serving import ours, resident

ROUNDS = 7
PORT = 18080


def start() -> tuple[float, float]:
    """Seconds until ready, and resident memory in MB two seconds later."""
    began = time.perf_counter()
    with ours(PORT) as process:
        seconds = time.perf_counter() - began
        time.sleep(2)
        return seconds, resident(process.pid)


def main() -> None:
    rounds = [start() for _ in range(ROUNDS)]
    for name, unit, values in zip(("ready after", "resident"), ("s", "MB"), zip(*rounds, strict=True), strict=True):
        print(f"{name}: median {statistics.median(values):.2f} {unit}, {min(values):.2f} to {max(values):.2f}")


if __name__ == "__main__":
    main()
