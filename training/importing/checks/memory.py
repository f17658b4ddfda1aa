"""The memory that the graphs take for one image in one piece, measured."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx

from app.bundle.files import Bundle
from app.bundle.manifest import Tiles
from app.inference.session import Session
from training.importing.checks.tiles import MAX_LEVELS, TileCheck
from training.importing.sources.onnx_files import run_session

_ROOT = Path(__file__).parents[3]
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_ATTENTION = {"Softmax", "Attention", "MultiHeadAttention", "GroupQueryAttention"}
"""Operators that compare all cells with each other: their memory grows with the square of the pixels."""


def describe_tiles(bundle: Bundle, check: TileCheck, stride: int) -> Tiles | None:
    """What the manifest says about tiles that change an image by more than a level: by how much, and the memory of the
    image in one piece, which the server compares with its bound.

    None if they change less, or the memory cannot be measured.
    """
    if check.levels <= MAX_LEVELS:
        return None
    (height, width), latent = check.size, bundle.manifest.latent
    image = (1, bundle.manifest.image.channels, height, width)
    cells = (1, latent.shape[0] or 1, height // stride, width // stride)
    linear, square, pixels = 0.0, 0.0, height * width
    for model, shape, dtype in ((bundle.encoder, image, "uint8"), (bundle.decoder, cells, "float32")):
        taken = _measured(model, shape, dtype)
        if taken is None:
            return None
        if any(node.op_type in _ATTENTION for node in onnx.load_from_string(model).graph.node):
            square = max(square, taken / pixels**2)
        else:
            linear = max(linear, taken / pixels)
    return Tiles(levels=check.levels, bytes_per_pixel=round(linear), bytes_per_megapixel_squared=round(square * 1e12))


def _measured(model: bytes, shape: tuple[int, ...], dtype: str) -> int | None:
    """Bytes that a run of zeros takes, in a process of its own: this one has free memory, which a run would reuse."""
    command = [sys.executable, "-m", __name__, dtype, *map(str, shape)]
    done = subprocess.run(command, input=model, capture_output=True, cwd=_ROOT, check=False)  # noqa: S603 (own module)
    return int(done.stdout) if done.returncode == 0 else None


def measure(model: bytes, shape: tuple[int, ...], dtype: str) -> int:
    """Bytes by which a run of zeros enlarges this process.

    Raises:
        OSError, KeyError: the system does not tell the largest memory of a process.
        BundleError, ImportRefused: the graph does not run.
    """
    session = Session(model, name="graph", any_size=True)
    _RESET.write_text("5")  # the largest memory is now that of this moment
    before = _kilobytes("VmRSS")
    run_session(session, np.zeros(shape, dtype))
    return 1024 * max(_kilobytes("VmHWM") - before, 1)


def _kilobytes(key: str) -> int:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines[key].split()[0])


if __name__ == "__main__":
    print(measure(sys.stdin.buffer.read(), tuple(map(int, sys.argv[2:])), sys.argv[1]))
