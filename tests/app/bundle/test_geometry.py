"""How the sizes of images and latents follow from each other."""

from pathlib import Path
from typing import Any

import pytest

from app.bundle.files import read_manifest
from app.bundle.geometry import Geometry
from app.errors import BundleError, InvalidInput
from tests.maps import write_maps

VECTOR = Geometry(1, (28, 28), (32,), 1)
FIXED = Geometry(3, (16, 24), (4, 2, 3), 8)
FREE = Geometry(3, None, (4, None, None), 8)


def test_sizes_of_fixed_models_are_known() -> None:
    assert (VECTOR.image_shape, VECTOR.latent_shape, VECTOR.dimensions()) == ((28, 28, 1), (32,), 32)
    assert (FIXED.image_shape, FIXED.latent_shape) == ((16, 24, 3), (4, 2, 3))
    assert FIXED.image_of((4, 2, 3)) == (16, 24)
    assert VECTOR.latent_of(28, 28) == (32,)


def test_others_follow_from_each_other() -> None:
    assert FREE.latent_of(64, 40) == (4, 8, 5)
    assert FREE.image_of((4, 8, 5)) == (64, 40)
    with pytest.raises(InvalidInput, match="any size"):
        _ = FREE.image_shape
    with pytest.raises(InvalidInput, match="any size"):
        _ = FREE.latent_shape


@pytest.mark.parametrize("geometry", [FIXED, FREE])
def test_maps_have_no_dimensions(geometry: Geometry) -> None:
    with pytest.raises(InvalidInput, match="maps"):
        geometry.dimensions()


@pytest.mark.parametrize(
    ("geometry", "shape", "planes"),
    [
        (VECTOR, (2, 28, 28, 1), False),
        (VECTOR, (2, 1, 28, 28), True),
        (FIXED, (1, 16, 24, 3), False),
        (FREE, (1, 8, 80, 3), False),
        (FREE, (1, 3, 8, 80), True),
    ],
)
def test_images_that_fit(geometry: Geometry, shape: tuple[int, ...], planes: bool) -> None:
    geometry.check_images(shape, planes=planes)
    with pytest.raises(InvalidInput) as refused:
        geometry.check_images(shape, "/there", planes=not planes)
    assert refused.value.pointer == "/there"
    with pytest.raises(InvalidInput, match="images must be"):
        geometry.check_images(shape[:3], planes=planes)


@pytest.mark.parametrize(
    ("height", "width", "pointer"),
    [(None, None, "/query/height"), (8, None, "/query/width"), (8, 9, "/query/width"), (12, 16, "/query/height")],
)
def test_a_size_is_to_be_given_in_strides(height: int | None, width: int | None, pointer: str) -> None:
    with pytest.raises(InvalidInput, match="a multiple of 8") as refused:
        FREE.size_asked(height, width)
    assert refused.value.pointer == pointer
    assert FREE.size_asked(8, 16) == (8, 16)
    assert FIXED.size_asked(None, 24) == (16, 24)
    with pytest.raises(InvalidInput, match="16 x 24"):
        FIXED.size_asked(16, 16)


@pytest.mark.parametrize(
    ("image", "latent"),
    [
        ({"height": None, "width": 24}, {}),
        ({"height": None, "width": None}, {}),
        ({}, {"shape": (4, None, None)}),
        ({}, {"shape": (4, 3, 2)}),
        ({}, {"stride": 4}),
        ({"height": None, "width": None}, {"shape": (4,), "stride": None}),
    ],
)
def test_sizes_that_do_not_go_together(tmp_path: Path, image: dict[str, Any], latent: dict[str, Any]) -> None:
    manifest = read_manifest(write_maps(tmp_path, size=(16, 24)))
    parts = {
        "image": manifest.image.model_copy(update=image),
        "latent": manifest.latent.model_copy(update=latent),
    }
    with pytest.raises(BundleError, match="sizes that do not go together"):
        Geometry.of(manifest.model_copy(update=parts))
