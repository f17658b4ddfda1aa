"""Digits as foreign models see them."""

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Pixels
from tests.training.importing.foreign import Linear


@pytest.fixture(scope="session")
def planes(digits: Pixels) -> Pixels:
    """Grey digits, uint8 `[400, 1, 28, 28]`."""
    return digits[:, None]


@pytest.fixture(scope="session")
def colours(digits: Pixels) -> Pixels:
    """Orange digits, uint8 `[400, 3, 28, 28]`."""
    return np.stack([digits, digits // 2, digits // 8], axis=1)


@pytest.fixture(scope="session")
def linear(planes: Pixels) -> Linear:
    return Linear.fitted(planes)


@pytest.fixture(scope="session")
def sample_file(tmp_path_factory: pytest.TempPathFactory, digits: Pixels) -> Path:
    """The digits in an npz file."""
    path = tmp_path_factory.mktemp("samples") / "digits.npz"
    np.savez(path, test_images=digits[:100])
    return path


@pytest.fixture(scope="session")
def colour_file(tmp_path_factory: pytest.TempPathFactory, colours: Pixels) -> Path:
    """The orange digits in an npz file."""
    path = tmp_path_factory.mktemp("samples") / "orange.npz"
    np.savez(path, test_images=colours[:100].transpose(0, 2, 3, 1))
    return path
