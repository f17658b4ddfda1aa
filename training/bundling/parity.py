"""The parity check: an ONNX graph must compute what its source computes, in batches of several sizes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.errors import ParityError

BATCH_SIZES = (1, 2, 7, 64)
"""Batch sizes that each graph is run with, in rows."""


class Tolerance(NamedTuple):
    """Maximum differences between a graph's output and its source's that count as rounding."""

    relative: float
    """For floats: `|graph - source| <= relative * (1 + |source|)`, an absolute and a relative tolerance."""
    levels: int
    """For uint8 images, in gray levels."""


FLOAT32 = Tolerance(1e-4, 1)


def check_graph(
    run: Callable[[NDArray[Any]], Mapping[str, NDArray[Any]]],
    rows: NDArray[Any],
    expected: Mapping[str, NDArray[Any]],
    *,
    sizes: Sequence[int] = BATCH_SIZES,
    tolerance: Tolerance = FLOAT32,
) -> None:
    """Run a graph on batches of the first rows, and compare its outputs with the source's.

    `run` maps rows `[n, ...]` to the graph's named outputs `[n, ...]`. `expected` holds the source's outputs of all
    `rows` `[N, ...]`, under the same names. Sizes above N run all N rows.

    Raises:
        ParityError: an output has another shape or type than the source's, or differs by more than `tolerance`; or the
            source's is not finite.
    """
    for size in sizes:
        outputs = run(rows[:size])
        for name, values in expected.items():
            compare(name, outputs[name], values[:size], tolerance)


def compare(name: str, output: NDArray[Any], expected: NDArray[Any], tolerance: Tolerance = FLOAT32) -> None:
    """Compare one output `[n, ...]` of a graph with its source's.

    Raises:
        ParityError: see `check_graph`.
    """
    if output.shape != expected.shape or output.dtype != expected.dtype:
        raise ParityError(
            f"the graph's `{name}` is {output.dtype} {list(output.shape)}, and its source's {expected.dtype} "
            f"{list(expected.shape)}"
        )
    if not np.isfinite(expected).all():
        raise ParityError(f"the source's `{name}` has values that are not finite")
    difference = np.abs(output.astype(np.float64) - expected)
    allowed = tolerance.levels if output.dtype == np.uint8 else tolerance.relative * (1 + np.abs(expected))
    if not (difference <= allowed).all():  # not `>`: that would accept NaN
        raise ParityError(
            f"the graph's `{name}` in a batch of {len(output)} differs from its source's by up to "
            f"{difference.max():.3g}: nothing is written"
        )
