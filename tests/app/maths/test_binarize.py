"""Grey pixels made binary: as often white as they are bright, and the same whenever the seed is."""

import numpy as np
import pytest

from app.maths.gaussian import generator, standard_normal
from app.maths.likelihood import STREAM, binarize, threshold
from tests.conftest import Pixels


def grey(count: int, value: int) -> Pixels:
    return np.full((count, 1, 28, 28), value, np.uint8)


def test_pixels_are_black_or_white(digits: Pixels) -> None:
    binary = binarize(digits[:20, None], 0)
    assert binary.dtype == np.uint8
    assert binary.shape == (20, 1, 28, 28)
    assert set(np.unique(binary)) == {0, 255}


@pytest.mark.parametrize("value", [1, 26, 128, 254])
def test_pixels_become_white_as_often_as_they_are_bright(value: int) -> None:
    share, count = value / 255, 100 * 28 * 28
    white = (binarize(grey(100, value), 1) == 255).mean()
    assert abs(white - share) < 4 * np.sqrt(share * (1 - share) / count)


def test_black_stays_black_and_white_white() -> None:
    assert not binarize(grey(50, 0), 2).any()
    assert (binarize(grey(50, 255), 2) == 255).all()


def test_images_are_left_as_they_are(digits: Pixels) -> None:
    images = digits[:5, None].copy()
    binarize(images, 0)
    assert np.array_equal(images, digits[:5, None])


def test_a_draw_depends_on_seed_row_and_place_alone(digits: Pixels) -> None:
    images = digits[:20, None]
    binary = binarize(images, 3)
    assert np.array_equal(binarize(images, 3), binary)
    assert np.array_equal(binarize(images[:7], 3), binary[:7]), "not on the images that come after"
    other = images.copy()
    other[:10] = 128
    assert np.array_equal(binarize(other, 3)[10:], binary[10:]), "nor on those that came before"
    assert not np.array_equal(binarize(images, 4), binary)
    same = binarize(np.repeat(grey(1, 128), 2, axis=0), 3)
    assert not np.array_equal(same[0], same[1]), "each row has its own"


def test_pixels_are_not_drawn_from_the_stream_of_the_latents() -> None:
    """Else a white pixel would go with a large latent."""
    latents = standard_normal(5, 1, (784,))[0]
    uniform = generator(5, 0, STREAM).random(784, np.float32)
    assert abs(np.corrcoef(latents, uniform)[0, 1]) < 0.1
    assert np.array_equal((uniform < np.float32(128 / 255)) * 255, binarize(grey(1, 128), 5).ravel())


def test_the_threshold_is_128() -> None:
    assert threshold(np.array([0, 127, 128, 255], np.uint8)).tolist() == [0, 0, 255, 255]
