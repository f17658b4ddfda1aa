"""Training images are mirrored and moved as the recipe says, and no others."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.conftest import tiny_recipe
from training.fit.augment import augment
from training.fit.batches import ImageBatch
from training.fit.module import VaeModule
from training.recipe import Augmentation

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (400, 3, 6, 5), np.uint8))


def uniform(*shape: int) -> Tensor:
    return torch.rand(len(IMAGES), *shape, generator=torch.Generator().manual_seed(1))


def moved(image: Tensor, down: int, right: int) -> Tensor:
    """Moved, with its edge repeated."""
    rows, columns = (torch.arange(6) + down).clamp(0, 5), (torch.arange(5) + right).clamp(0, 4)
    return image[:, rows][:, :, columns]


def test_without_it_images_stay() -> None:
    assert augment(IMAGES, Augmentation(), uniform) is IMAGES


def test_about_half_are_mirrored() -> None:
    flipped = augment(IMAGES, Augmentation(flip=True), uniform)
    same = (flipped == IMAGES).flatten(1).all(dim=1)
    mirrored = (flipped == IMAGES.flip(3)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 0.4 < mirrored.float().mean() < 0.6


def test_they_move_by_every_step_in_both_directions() -> None:
    seen = set()
    for image, was in zip(augment(IMAGES, Augmentation(shift=1), uniform), IMAGES, strict=True):
        (move,) = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if torch.equal(image, moved(was, y, x))]
        seen.add(move)
    assert len(seen) == 9


def test_every_image_is_mirrored_or_moved_alike_however_many_processes_there_are(tmp_path: object) -> None:
    """By draws for the whole batch, of which each process takes its rows."""
    recipe = tiny_recipe(
        tmp_path, "tiny", augmentation={"flip": True, "shift": 2}, likelihood={"name": "gaussian", "scale": 1.0}
    )  # type: ignore[arg-type]
    module = VaeModule(recipe, channels=1, size=28)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (8, 1, 28, 28), np.uint8))

    def seen(start: int, stop: int) -> Tensor:
        module._seed(0)
        return module._pixels(ImageBatch(images[start:stop], start, len(images)))

    assert torch.equal(seen(0, 8), torch.cat([seen(0, 4), seen(4, 8)]))
    assert not torch.equal(seen(0, 8), images / 255)
    module.eval()  # as what is measured has to be
    torch.testing.assert_close(seen(0, 8), images / 255)


@pytest.mark.parametrize("wrong", [{"shift": -1}, {"flip": 1}, {"turn": True}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augmentation.model_validate(wrong)
