"""Faces drawn by two npm packages, in as many processes of Node.js as there are cores."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from rich.progress import track

from training.data.dataset import LOCK
from training.errors import DataError

FILES = ("package.json", "package-lock.json", "draw.mjs")
"""Files of this folder that draw. They are copied to where their packages are installed."""
BLOCK = 500
"""Faces that one process draws."""
TIMEOUT_SECONDS = 600
"""Timeout of npm, and of a process that draws."""


def draw(lines: Sequence[str], size: int, background: str, folder: Path) -> NDArray[np.uint8]:
    """Draw faces uint8 `[N, size, size, 3]` from their options, each a line of JSON.

    npm installs the packages in `folder` if they are missing.

    Raises:
        DataError: Node.js or npm is missing or fails.
    """
    node = install(folder)
    blocks = [lines[start : start + BLOCK] for start in range(0, len(lines), BLOCK)]
    images = np.empty((len(lines), size, size, 3), np.uint8)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        drawn = pool.map(partial(_draw_block, [node, "draw.mjs", str(size), background], folder), blocks)
        shown = track(drawn, "Drawing faces", len(blocks), transient=True, disable=not sys.stdout.isatty())
        for number, pixels in enumerate(shown):
            block = images[number * BLOCK : (number + 1) * BLOCK]
            if len(pixels) != block.nbytes:
                raise DataError(f"node drew {len(pixels)} bytes of {block.nbytes} in {folder}")
            block[:] = np.frombuffer(pixels, np.uint8).reshape(block.shape)
    return images


def install(folder: Path) -> str:
    """Return the path of Node.js. If the packages are missing in `folder`, one process installs them with npm.

    Raises:
        DataError: Node.js or npm is missing, or npm cannot install the packages.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise DataError("faces are drawn with Node.js: install node and npm (Debian: apt-get install nodejs npm)")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        locked = Path(__file__).with_name("package-lock.json").read_bytes()
        installed = folder / "installed.json"
        for name in FILES:
            shutil.copyfile(Path(__file__).with_name(name), folder / name)
        if not installed.exists() or installed.read_bytes() != locked:
            _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], folder)
            installed.write_bytes(locked)
    return node


def _draw_block(command: list[str], folder: Path, lines: Sequence[str]) -> bytes:
    return _run(command, folder, "\n".join(lines).encode())


def _run(command: list[str], folder: Path, given: bytes = b"") -> bytes:
    """Run a program of Node.js in `folder`, and return its standard output."""
    try:
        return subprocess.run(  # noqa: S603 (its words are constants and numbers)
            command, cwd=folder, input=given, check=True, capture_output=True, timeout=TIMEOUT_SECONDS
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace").strip()
        raise DataError(f"{Path(command[0]).name} could not draw faces in {folder}: {said}") from error
