"""Colors: their places in Oklab, and the way back."""

from itertools import product

import numpy as np

from training.data.faces.colors import from_hex, to_hex, to_oklab, to_rgb

KNOWN = {
    "#000000": (0.0, 0.0, 0.0),
    "#ffffff": (1.0, 0.0, 0.0),
    "#ff0000": (0.62796, 0.22486, 0.12585),
    "#00ff00": (0.86644, -0.23389, 0.17950),
    "#0000ff": (0.45201, -0.03246, -0.31153),
    "#808080": (0.59987, 0.0, 0.0),
}
"""Computed with colorjs.io 0.5."""


def test_known_colors_are_at_their_places() -> None:
    np.testing.assert_allclose(to_oklab(from_hex(tuple(KNOWN))), list(KNOWN.values()), atol=1e-4)


def test_every_color_comes_back() -> None:
    colors = np.array(list(product(range(0, 256, 15), repeat=3)), np.uint8)
    assert np.array_equal(to_rgb(to_oklab(colors)), colors)


def test_what_lies_outside_becomes_the_end_of_its_channels() -> None:
    assert to_rgb(np.array([[2.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.6, 0.5, 0.2]])).tolist() == [
        [255, 255, 255],
        [0, 0, 0],
        [255, 0, 0],
    ]


def test_colors_are_written_in_hexadecimal() -> None:
    colors = np.array([[0, 10, 255], [171, 205, 239]], np.uint8)
    assert to_hex(colors) == ["#000aff", "#abcdef"]
    assert np.array_equal(from_hex(("#000aff", "#abcdef")), colors)
