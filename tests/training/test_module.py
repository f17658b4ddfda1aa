"""What the LightningModule does in a loop: which batches it sees, how its rates rise and fall, what it minimises."""

import math
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn import functional

from tests.training.conftest import TRAIN_IMAGES, lightning, tiny_recipe
from training.batches import ImageData
from training.data import Dataset, load_dataset
from training.module import VaeModule
from training.objective import kl_divergence
from training.recipe import Recipe

STEPS = math.ceil(TRAIN_IMAGES / 25)


class Recorder(Callback):
    """Notes what every step sees."""

    def __init__(self) -> None:
        self.train: list[torch.Tensor] = []
        self.test: list[torch.Tensor] = []
        self.kl_weights: list[float] = []
        self.learning_rates: list[float] = []
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: torch.Tensor, *_: Any) -> None:
        self.train.append(batch.clone())
        self.kl_weights.append(pl_module.kl_weight())
        self.learning_rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"].item())

    def on_validation_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: torch.Tensor, *_: Any) -> None:
        self.test.append(batch.clone())


@pytest.fixture(scope="module")
def dataset(data_dir: Path) -> Dataset:
    return load_dataset("mnist", data_dir)


def run(recipe: Recipe, dataset: Dataset) -> tuple[VaeModule, Recorder, L.Trainer]:
    torch.manual_seed(0)
    module, recorder = VaeModule(recipe, channels=1, size=28), Recorder()
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with lightning():
        trainer = L.Trainer(
            max_epochs=recipe.training.epochs,
            callbacks=recorder,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            use_distributed_sampler=False,
            **options,
        )
        trainer.fit(module, ImageData(dataset, batch_size=recipe.training.batch_size, seed=recipe.seed))
    return module, recorder, trainer


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Recorder:
    """Of three epochs with a warm-up of one epoch."""
    return run(tiny_recipe(tmp_path_factory.mktemp("recipe"), "tiny"), dataset)[1]


def test_each_epoch_shows_each_training_image_once_in_its_own_order(recorder: Recorder, dataset: Dataset) -> None:
    epochs = torch.cat(recorder.train).numpy().reshape(3, TRAIN_IMAGES, 1, 28, 28)
    for epoch, images in enumerate(epochs):
        order = np.random.default_rng([7, epoch]).permutation(TRAIN_IMAGES)
        assert np.array_equal(images, dataset.train.images[order])


def test_test_images_keep_their_order(recorder: Recorder, dataset: Dataset) -> None:
    for images in torch.cat(recorder.test).numpy().reshape(3, -1, 1, 28, 28):
        assert np.array_equal(images, dataset.test.images)


def test_the_weight_of_the_kl_rises_linearly_to_one(recorder: Recorder) -> None:
    rise = [(step + 1) / STEPS for step in range(STEPS)]
    assert recorder.kl_weights == pytest.approx(rise + [1.0] * 2 * STEPS)


def test_the_learning_rate_rises_and_falls_along_a_cosine(recorder: Recorder) -> None:
    total = 3 * STEPS
    expected = [1e-2 * min(1, (step + 1) / 4) * 0.5 * (1 + math.cos(math.pi * step / total)) for step in range(total)]
    assert recorder.learning_rates == pytest.approx(expected)
    assert recorder.learning_rates[-1] < 1e-3


def test_without_schedule_and_warm_ups_both_rates_are_constant(tmp_path: Path, dataset: Dataset) -> None:
    recorder = run(tiny_recipe(tmp_path, "tiny-2d"), dataset)[1]
    assert set(recorder.kl_weights) == {1.0}
    assert set(recorder.learning_rates) == {1e-3}


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamax", torch.optim.Adamax)])
def test_the_recipe_names_the_optimizer(tmp_path: Path, dataset: Dataset, name: str, kind: type) -> None:
    recipe = tiny_recipe(tmp_path, "tiny-ae", training={"optimizer": name})
    trainer = run(recipe, dataset)[2]
    assert type(trainer.optimizers[0]) is kind


def test_an_autoencoder_minimises_the_reconstruction_alone(tmp_path: Path, dataset: Dataset) -> None:
    module, recorder, trainer = run(tiny_recipe(tmp_path, "tiny-ae"), dataset)
    images = torch.from_numpy(dataset.test.images.copy())
    reconstruction, kl = module.loss_terms(images)
    assert not kl.any()
    pixels = images / 255
    logits = module.decoder(module.encoder(pixels)[0])
    expected = functional.binary_cross_entropy_with_logits(logits, pixels, reduction="sum") / len(images)
    assert reconstruction.mean().item() == pytest.approx(expected.item(), rel=1e-5)
    logged = trainer.callback_metrics
    assert logged["train/negative_elbo"].item() == pytest.approx(np.mean(recorder.losses), rel=1e-5)
    assert logged["test/negative_elbo"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert logged["test/kl"].item() == 0.0


def test_the_loss_is_the_negative_elbo_once_the_kl_counts_in_full(tmp_path: Path, dataset: Dataset) -> None:
    module, recorder, trainer = run(tiny_recipe(tmp_path, "tiny-2d", training={"epochs": 1}), dataset)
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert logged["train/negative_elbo"] == pytest.approx(np.mean(recorder.losses), rel=1e-5)
    for split in ("train", "test"):
        sum_of_terms = logged[f"{split}/reconstruction"] + logged[f"{split}/kl"]
        assert logged[f"{split}/negative_elbo"] == pytest.approx(sum_of_terms, rel=1e-5)
    images = torch.from_numpy(dataset.test.images.copy())
    heads = module.encoder(images / 255)
    torch.testing.assert_close(module.loss_terms(images)[1], kl_divergence(*heads))


def test_binary_pixels_are_drawn_before_the_encoder_sees_them(tmp_path: Path, dataset: Dataset) -> None:
    module = VaeModule(tiny_recipe(tmp_path, "tiny"), channels=1, size=28)
    seen = []
    module.encoder.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    images = torch.from_numpy(dataset.test.images.copy())
    for _ in range(2):
        module.loss_terms(images)
    for pixels in seen:
        assert set(pixels.unique().tolist()) == {0.0, 1.0}
        assert pixels.mean().item() == pytest.approx((images / 255).mean().item(), abs=0.01)
    assert not torch.equal(*seen)


def test_grey_pixels_stay_grey(tmp_path: Path, dataset: Dataset) -> None:
    module = VaeModule(tiny_recipe(tmp_path, "tiny-2d"), channels=1, size=28)
    seen = []
    module.encoder.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    images = torch.from_numpy(dataset.test.images.copy())
    module.loss_terms(images)
    assert torch.equal(seen[0], images / 255)


def test_no_other_warning_of_lightnings_is_silenced() -> None:
    with pytest.raises(UserWarning, match="anything else"), lightning():
        warnings.warn("anything else", stacklevel=1)
