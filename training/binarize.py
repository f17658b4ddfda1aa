"""Grey pixels made binary by seeded draws."""

import numpy as np
from numpy.typing import NDArray

from app.gaussian import generator

STREAM = 1
"""Stream of a row's generator that its pixels are drawn from; stream 0 is the latents'."""

Pixels = NDArray[np.uint8]


def binarize(images: Pixels, seed: int) -> Pixels:
    """0 or 255, 255 with probability grey/255; what a pixel becomes depends on seed, row and place alone."""
    binary = np.empty_like(images)
    for row, image in enumerate(images):
        uniform = generator(seed, row, STREAM).random(image.shape, np.float32)
        binary[row] = np.where(uniform < image / np.float32(255), 255, 0)
    return binary
