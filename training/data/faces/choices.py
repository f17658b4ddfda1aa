"""The options of faces: which there are, and which ones each face of a data set has."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.faces.colors import from_hex, to_hex, to_oklab, to_rgb

Options = Mapping[str, NDArray[Any]]
"""Options of N faces by name: those of SHAPES are names `[N]`, those of COLORS are Oklab, float32 `[N, 3]`."""

NONE = "none"

SHAPES: dict[str, tuple[str, ...]] = {
    "hair": ("sideComed", "undercut", "spiky", "bun"),
    "rear_hair": (NONE, "longStraight", "longWavy", "shoulderHigh", "neckHigh"),
    "clothes": ("turtleNeck", "openJacket", "dress", "shirt", "tShirt"),
    "beard": (NONE, "moustacheTwirl", "fullBeard", "chin", "chinMoustache", "longBeard"),
    "eyes": ("happy", "wide", "bow", "humble", "wink"),
    "brows": ("raised", "angry", "happy", "sad", "neutral"),
    "mouth": ("laugh", "angry", "agape", "smile", "sad"),
}
"""Options that are one of several shapes, by the style's names."""

WORDS = {
    "sideComed": "side-combed",
    "longStraight": "long",
    "longWavy": "wavy",
    "shoulderHigh": "shoulder-high",
    "neckHigh": "neck-high",
}
"""Words for names that are none."""

CLASSES = tuple(
    ", ".join(WORDS.get(name, name) for name in (hair, rear) if name != NONE)
    for hair in SHAPES["hair"]
    for rear in SHAPES["rear_hair"]
)
"""Names of the labels 0, 1, ...: the hair, with that at the back. They decide most of a face's outline, and each class
has its own part of the mixture in a bundle."""

NONE_FRACTION = 0.5
"""Fraction of faces without a beard, and of those without hair at the back. All other shapes are equally likely."""

COLORS: dict[str, tuple[str, ...]] = {
    "hair_color": ("#2c1b18", "#a55728", "#b58143", "#d6b370", "#724133"),
    "skin_color": ("#f1c3a5", "#c68e7a", "#b98e6a", "#a36b4f", "#5c3829"),
    "clothes_color": (
        *("#545454", "#b11f1f", "#0b3286", "#147f3c", "#eab308"),
        *("#731ac3", "#ec4899", "#f97316", "#151613", "#e8e9e6"),
    ),
}
"""Options that are a color, and the style's own palettes."""

FREE_FRACTION = {"hair_color": 0.2, "skin_color": 0.0, "clothes_color": 0.5}
"""Fraction of faces whose color is drawn from FREE_RANGES. The others have a color of the palette or, half of them, a
mixture of two."""

FREE_RANGES = np.array([(0.3, 0.9), (0.0, 0.2), (0.0, 2 * np.pi)])
"""Ranges of lightness, chroma and hue, in Oklab's polar form, that free colors are drawn from."""


def choose(count: int, seed: int) -> Options:
    """The options of `count` faces. The first faces of a longer data set of the same seed are these."""
    draws = np.random.Generator(np.random.PCG64(seed)).random((count, len(SHAPES) + 6 * len(COLORS)))
    shapes: dict[str, NDArray[Any]] = {name: _shapes(name, draws[:, column]) for column, name in enumerate(SHAPES)}
    colors = {name: _colors(name, draws[:, len(SHAPES) + 6 * place :][:, :6]) for place, name in enumerate(COLORS)}
    return shapes | colors


def to_lines(options: Options) -> list[str]:
    """Each face's options as a line of JSON, for draw.mjs."""
    written = {name: options[name].tolist() for name in SHAPES}
    written |= {name: to_hex(to_rgb(options[name].astype(np.float64))) for name in COLORS}
    return [json.dumps(dict(zip(written, face, strict=True))) for face in zip(*written.values(), strict=True)]


def labels_of(options: Options) -> NDArray[np.uint8]:
    """Each face's label `[N]`, a row of CLASSES."""
    hair, rear = (
        sum(number * (options[name] == shape) for number, shape in enumerate(SHAPES[name]))
        for name in ("hair", "rear_hair")
    )
    labels: NDArray[np.uint8] = np.asarray(hair * len(SHAPES["rear_hair"]) + rear, np.uint8)
    return labels


def combination_digests(options: Options) -> list[bytes]:
    """Hash of each face's shapes: faces that differ in colors alone have the same."""
    shapes = zip(*(options[name].tolist() for name in SHAPES), strict=True)
    return [hashlib.sha256(" ".join(face).encode()).digest() for face in shapes]


def _shapes(name: str, draws: NDArray[np.float64]) -> NDArray[np.str_]:
    """One of an option's shapes for each draw `[N]` from [0, 1)."""
    shapes = SHAPES[name]
    weights = np.ones(len(shapes))
    if NONE in shapes:
        weights[0] = NONE_FRACTION / (1 - NONE_FRACTION) * (len(shapes) - 1)
    return np.array(shapes)[np.searchsorted(np.cumsum(weights / weights.sum())[:-1], draws, side="right")]


def _colors(name: str, draws: NDArray[np.float64]) -> NDArray[np.float32]:
    """A color, Oklab `[N, 3]`, for each row of draws `[N, 6]` from [0, 1). It is that of an 8-bit color."""
    palette = to_oklab(from_hex(COLORS[name]))
    first, second = (palette[(draws[:, column] * len(palette)).astype(int)] for column in (0, 1))
    share = np.maximum(0, 2 * draws[:, 2, None] - 1)  # half of the faces have the first color as it is
    mixed = first + share * (second - first)
    low, high = FREE_RANGES.T
    lightness, chroma, hue = (low + (high - low) * draws[:, [2, 4, 5]]).T
    free = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=1)
    chosen = np.where(draws[:, 3, None] < FREE_FRACTION[name], free, mixed)
    return to_oklab(to_rgb(chosen)).astype(np.float32)
