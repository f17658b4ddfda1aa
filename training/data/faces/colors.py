"""Colors in Oklab, where equal distances look alike: lightness from 0 to 1, a from green to red, b from blue to yellow.

Source of the matrices: Björn Ottosson, https://bottosson.github.io/posts/oklab (2020).
"""

import numpy as np
from numpy.typing import NDArray

LMS_OF_RGB = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
LAB_OF_LMS = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def to_oklab(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Oklab `[*, 3]` of 8-bit sRGB colors `[*, 3]`."""
    levels = rgb / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    lab: NDArray[np.float64] = np.cbrt(linear @ LMS_OF_RGB.T) @ LAB_OF_LMS.T
    return lab


def to_rgb(lab: NDArray[np.float64]) -> NDArray[np.uint8]:
    """8-bit sRGB colors `[*, 3]` of Oklab `[*, 3]`. Colors outside sRGB lose what is outside in each channel."""
    linear = np.clip((lab @ np.linalg.inv(LAB_OF_LMS).T) ** 3 @ np.linalg.inv(LMS_OF_RGB).T, 0, 1)
    levels = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    rgb: NDArray[np.uint8] = np.rint(levels * 255).astype(np.uint8)
    return rgb


def to_hex(rgb: NDArray[np.uint8]) -> list[str]:
    """`#rrggbb` of each color `[N, 3]`."""
    return [f"#{color.tobytes().hex()}" for color in np.ascontiguousarray(rgb)]


def from_hex(colors: tuple[str, ...]) -> NDArray[np.uint8]:
    """8-bit colors `[N, 3]` of `#rrggbb`."""
    return np.array([list(bytes.fromhex(color.removeprefix("#"))) for color in colors], np.uint8)
