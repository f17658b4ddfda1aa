"""The memory that the graphs take for one image in one piece, measured."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from app.bundle.files import Bundle
from app.bundle.manifest import Tiles
from app.inference.session import Session
from training.importing.checks.tiles import MAX_LEVELS, TileCheck
from training.importing.sources.onnx_files import run_session

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_ATTENTION = {"Softmax", "Attention", "MultiHeadAttention", "GroupQueryAttention"}
"""Operators that compare all cells with each other: their memory grows with the square of the pixels."""


def describe_tiles(bundle: Bundle, check: TileCheck, stride: int) -> Tiles | None:
    """What the manifest says about tiles that change an image by more than a level: by how much, and the memory of the
    image in one piece, which the server compares with its bound.

    None if they change less, or the system does not tell the largest memory of a process.

    Raises:
        ImportRefused: a graph does not run.
    """
    if check.levels <= MAX_LEVELS:
        return None
    (height, width), latent = check.size, bundle.manifest.latent
    image = np.zeros((1, bundle.manifest.image.channels, height, width), np.uint8)
    cells = np.zeros((1, latent.shape[0] or 1, height // stride, width // stride), np.float32)
    linear, square, pixels = 0.0, 0.0, height * width
    for model, rows in ((bundle.encoder, image), (bundle.decoder, cells)):
        # In a process of its own: this one has free memory, which a run may take without enlarging it.
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            taken = process.submit(_measure, model, rows).result()
        if taken is None:
            return None
        if any(node.op_type in _ATTENTION for node in onnx.load_from_string(model).graph.node):
            square = max(square, taken / pixels**2)
        else:
            linear = max(linear, taken / pixels)
    return Tiles(levels=check.levels, bytes_per_pixel=round(linear), bytes_per_megapixel_squared=round(square * 1e12))


def _measure(model: bytes, rows: NDArray[Any]) -> int | None:
    """Bytes by which a run of `rows` enlarges the process, or None if the system does not tell."""
    session = Session(model, name="graph", any_size=True)
    try:
        _RESET.write_text("5")  # the largest memory is now that of this moment
        before = _kilobytes("VmRSS")
        run_session(session, rows)
        return 1024 * max(_kilobytes("VmHWM") - before, 1)
    except (OSError, KeyError):
        return None


def _kilobytes(key: str) -> int:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines[key].split()[0])
