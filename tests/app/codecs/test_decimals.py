"""Arrays as decimal numbers."""

import json
from decimal import Decimal

import numpy as np
import pytest

from app.codecs.decimals import json_of, listed, significant
from app.maths.arrays import Floats


def test_rows_are_flat_lists_in_row_major_order() -> None:
    maps = np.arange(48).reshape(2, 4, 2, 3)
    assert listed(maps) == [list(range(24)), list(range(24, 48))]
    assert listed(maps.astype(np.float32)) == listed(maps)
    assert listed(maps[:, :, 0, 0]) == [[0, 6, 12, 18], [24, 30, 36, 42]]
    assert listed(np.array([1 / 3])) == [0.3333333]
    assert listed(np.array([2**40], np.int64)) == [2**40]


def numbers(low: int, high: int) -> Floats:
    """Floats of both signs, of the magnitudes 10**low to 10**high."""
    generator = np.random.default_rng(high)
    return (generator.standard_normal(50_000) * 10.0 ** generator.integers(low, high, 50_000)).astype(np.float32)


def edges() -> Floats:
    """Every power of two and of ten, and the floats beside them."""
    with np.errstate(over="ignore"):
        powers = np.array([2.0**n for n in range(-149, 128)] + [10.0**n for n in range(-37, 39)], np.float32)
    beside = [np.nextafter(powers, np.float32(end)) for end in (0, np.inf)]
    return np.concatenate([powers, *beside, -powers, np.float32([0, -0.0, 9.9999995, 0.1, 123456.75])])


@pytest.mark.parametrize("given", [numbers(-3, 2), numbers(-14, 7), numbers(-36, 36), edges()])
def test_floats_have_seven_significant_digits(given: Floats) -> None:
    rounded = significant(given)
    for value, number in zip(rounded.tolist(), given.tolist(), strict=True):
        assert len(Decimal(repr(value)).normalize().as_tuple().digits) <= 7, number
        assert value == float(f"{number:.7g}") or abs(value - number) <= abs(float(f"{number:.7g}") - number)
    np.testing.assert_allclose(rounded, given.astype(np.float64), rtol=5.1e-7)


def test_what_is_not_finite_stays_so() -> None:
    assert repr(significant(np.float32([np.nan, np.inf, -np.inf, 1])).tolist()) == "[nan, inf, -inf, 1.0]"


@pytest.mark.parametrize(
    "shape", [(3,), (2, 5), (0,), (0, 4), (1, 2, 3, 4), (2, 4, 8, 8), (300, 2), (1000,), (40, 1000), (2, 20_000)]
)
def test_json_is_the_lists(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    for given in (array, array.astype(np.float64), (1e6 * array).astype(np.int64)):
        assert json.loads(json_of(given)) == listed(given)
    assert json.loads(json_of(array[:1])) == json.loads(json_of(array))[:1]  # as many rows make no difference
    array[..., :1] = np.nan
    assert json.loads(json_of(array), parse_constant=lambda _: pytest.fail("not JSON")) is not None
