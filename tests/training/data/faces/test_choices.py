"""The options of faces: drawn from a seed, as often as promised, and written for the program that draws."""

import json

import numpy as np
import pytest

from training.data.faces.choices import (
    CLASSES,
    COLORS,
    FREE_FRACTION,
    SHAPES,
    choose,
    combination_digests,
    labels_of,
    to_lines,
)
from training.data.faces.colors import from_hex, to_hex, to_oklab, to_rgb

COUNT = 20_000
CHOSEN = choose(COUNT, 0)


def test_every_face_has_every_option() -> None:
    assert CHOSEN.keys() == {*SHAPES, *COLORS}
    for name, shapes in SHAPES.items():
        assert set(CHOSEN[name].tolist()) == set(shapes)
        assert CHOSEN[name].shape == (COUNT,)
    for name in COLORS:
        assert CHOSEN[name].shape == (COUNT, 3)
        assert CHOSEN[name].dtype == np.float32


def test_the_seed_decides_and_more_faces_begin_with_the_same() -> None:
    few, others = choose(50, 0), choose(50, 1)
    for name in CHOSEN:
        assert np.array_equal(few[name], CHOSEN[name][:50])
        assert not np.array_equal(few[name], others[name])


@pytest.mark.parametrize("name", SHAPES)
def test_half_have_no_beard_or_hair_at_the_back_and_all_else_is_equally_frequent(name: str) -> None:
    shapes = SHAPES[name]
    none = 0.5 if "none" in shapes else 0.0
    expected = {shape: (1 - none) / (len(shapes) - (none > 0)) for shape in shapes} | ({"none": none} if none else {})
    found = {shape: (CHOSEN[name] == shape).mean().item() for shape in shapes}
    assert found == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("name", COLORS)
def test_colors_are_the_palettes_mixtures_and_free_ones(name: str) -> None:
    rgb = to_rgb(CHOSEN[name].astype(np.float64))
    of_palette = np.isin(to_hex(rgb), COLORS[name]).mean()
    # Half of those that are not free are the palette's; a mixture of a color with itself is, too.
    assert of_palette == pytest.approx((1 - FREE_FRACTION[name]) * (0.5 + 0.5 / len(COLORS[name])), abs=0.02)
    assert len(np.unique(rgb, axis=0)) > 1000
    assert np.allclose(to_oklab(rgb), CHOSEN[name], atol=1e-6), "each label is that of the color that is drawn"


def test_skin_stays_between_the_colors_of_the_style() -> None:
    palette = to_oklab(from_hex(COLORS["skin_color"]))
    assert (CHOSEN["skin_color"] > palette.min(axis=0) - 0.01).all()
    assert (CHOSEN["skin_color"] < palette.max(axis=0) + 0.01).all()


def test_a_line_has_a_faces_options() -> None:
    lines = to_lines(choose(3, 7))
    for number, line in enumerate(lines):
        face = json.loads(line)
        assert face.keys() == {*SHAPES, *COLORS}
        for name in SHAPES:
            assert face[name] == choose(3, 7)[name][number]
        for name in COLORS:
            assert np.allclose(to_oklab(from_hex((face[name],)))[0], choose(3, 7)[name][number], atol=1e-6)


def test_a_label_is_the_hair_with_that_at_the_back() -> None:
    labels = labels_of(CHOSEN)
    assert labels.dtype == np.uint8
    assert set(labels.tolist()) == set(range(len(CLASSES))) == set(range(20))
    for hair, rear, name in (("bun", "none", "bun"), ("sideComed", "longWavy", "side-combed, wavy")):
        both = (CHOSEN["hair"] == hair) & (CHOSEN["rear_hair"] == rear)
        assert np.array_equal(labels == CLASSES.index(name), both)


def test_faces_of_the_same_shapes_have_the_same_digest_whatever_their_colors() -> None:
    digests, shapes = combination_digests(CHOSEN), list(zip(*(CHOSEN[name].tolist() for name in SHAPES), strict=True))
    of_shapes = dict(zip(shapes, digests, strict=True))
    assert [of_shapes[combination] for combination in shapes] == digests
    assert len(set(digests)) == len(of_shapes) < COUNT
