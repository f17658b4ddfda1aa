"""Types of numpy arrays, for all modules."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
"""Arrays by name: the inputs or outputs of a graph."""
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def flat(array: NDArray[Any]) -> NDArray[Any]:
    """The array with one flat row for each of its rows: `[N, c, h, w]` becomes `[N, c * h * w]`."""
    return array.reshape(len(array), -1) if array.ndim > 2 else array
