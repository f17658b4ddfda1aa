"""What the LightningModule does: the terms of a batch, and in a loop what it sees, how its rates go, what it skips."""

import math
import shutil
import subprocess
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal
from torch.nn.utils import get_total_norm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from tests.conftest import ROOT, Pixels
from tests.training.conftest import TRAIN_IMAGES, tiny_recipe
from training.errors import RecipeError
from training.fit.batches import ImageBatch, ImageBatches, ImageData
from training.fit.module import LossTerms, VaeModule, current_commit
from training.fit.objective import iwae, kl_divergence
from training.recipe import Elbo, Recipe

pytestmark = pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated")

STEPS = math.ceil(TRAIN_IMAGES / 25)
MLP = {"name": "mlp", "width": 16, "depth": 1}
ELBO, IWAE, AUTOENCODER = {"name": "elbo"}, {"name": "iwae", "k": 3}, {"name": "autoencoder"}
BERNOULLI, GREY = {"name": "bernoulli"}, {"name": "grey_cross_entropy"}
GAUSSIAN, LOGISTIC = {"name": "gaussian", "scale": "learned"}, {"name": "discretized_logistic"}
KINDS = {
    "elbo": {"objective": ELBO, "likelihood": BERNOULLI},
    "elbo grey": {"objective": ELBO, "likelihood": GREY},
    "elbo gaussian": {"objective": ELBO, "likelihood": GAUSSIAN},
    "iwae": {"objective": IWAE, "likelihood": BERNOULLI},
    "iwae logistic": {"objective": IWAE, "likelihood": LOGISTIC},
    "autoencoder": {"objective": AUTOENCODER, "likelihood": BERNOULLI},
}


@pytest.fixture
def recipe_of(tmp_path: Path) -> Callable[..., Recipe]:
    """The tiny recipe with a net that is quick, and other changes."""
    return lambda **changes: tiny_recipe(tmp_path, "tiny", **({"architecture": MLP} | changes))


@pytest.fixture
def module_of(recipe_of: Callable[..., Recipe]) -> Callable[..., VaeModule]:
    """A fresh module of such a recipe, weights by the same seed."""

    def make(**changes: Any) -> VaeModule:
        torch.manual_seed(0)
        module = VaeModule(recipe_of(**changes), channels=1, size=28)
        module.on_validation_epoch_start()
        return module

    return make


@pytest.fixture(scope="module")
def images(digits: Pixels) -> Tensor:
    """20 digits, uint8 `[20, 1, 28, 28]`."""
    return torch.from_numpy(digits[:20, None].copy())


def whole(images: Tensor) -> ImageBatch:
    return ImageBatch(images, 0, len(images))


def encoder_inputs(module: VaeModule) -> list[Tensor]:
    """Where what the encoder is given will be listed."""
    seen: list[Tensor] = []
    module.encoder.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach().clone()))
    return seen


# The terms of a batch.


@pytest.mark.parametrize("kind", KINDS)
def test_terms_have_their_shapes(module_of: Callable[..., VaeModule], images: Tensor, kind: str) -> None:
    terms = module_of(**KINDS[kind]).terms(whole(images))
    k = 3 if "iwae" in kind else 1
    assert terms.reconstruction.shape == (20,)
    assert terms.kl.shape == (20, 4)
    assert terms.latents.shape == (k, 20, 4)
    assert (terms.log_weights is not None) == ("iwae" in kind)
    assert terms.log_weights is None or terms.log_weights.shape == (k, 20)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_processes_come_to_the_terms_that_one_would(
    module_of: Callable[..., VaeModule], images: Tensor, kind: str, world: int
) -> None:
    """In two batches one after the other, the second of another size, shared equally or not."""

    def through(rank: int, world: int) -> list[LossTerms]:
        module = module_of(**KINDS[kind])
        return [module.terms(batch) for batch in ImageBatches(images, 11, rank=rank, world_size=world)]

    alone = through(0, 1)
    assert not torch.allclose(alone[0].latents[:, :9], alone[1].latents), "other images, other draws"
    for one, *shares in zip(alone, *(through(rank, world) for rank in range(world)), strict=True):
        for name, axis in {"reconstruction": 0, "kl": 0, "log_weights": 1, "latents": 1}.items():
            if getattr(one, name) is not None:
                together = torch.cat([getattr(share, name) for share in shares], dim=axis)
                torch.testing.assert_close(together, getattr(one, name), rtol=1e-4, atol=1e-4)


def test_binary_pixels_are_drawn_before_the_encoder_sees_them(
    module_of: Callable[..., VaeModule], digits: Pixels
) -> None:
    module, grey = module_of(), torch.from_numpy(digits[:, None].copy())
    seen = encoder_inputs(module)
    for _ in range(2):
        module.terms(whole(grey))
    for pixels in seen:
        assert set(pixels.unique().tolist()) == {0.0, 1.0}
        assert pixels.mean().item() == pytest.approx((grey / 255).mean().item(), abs=0.005)
        assert not pixels[grey == 0].any()
        assert pixels[grey == 255].all()
    assert not torch.equal(*seen), "drawn anew each time"


@pytest.mark.parametrize(
    "likelihood", [GREY, GAUSSIAN, LOGISTIC, {"name": "bernoulli", "binarization": "static"}], ids=str
)
def test_other_pixels_stay_as_they_are(
    module_of: Callable[..., VaeModule], images: Tensor, likelihood: dict[str, Any]
) -> None:
    """Static ones have been drawn before the module sees them."""
    module = module_of(likelihood=likelihood)
    seen = encoder_inputs(module)
    module.terms(whole(images))
    assert torch.equal(seen[0], images / 255)


@pytest.mark.parametrize("kind", ["elbo", "iwae"])
def test_terms_agree_with_torch_distributions(module_of: Callable[..., VaeModule], images: Tensor, kind: str) -> None:
    module = module_of(**KINDS[kind])
    seen = encoder_inputs(module)
    terms = module.terms(whole(images))
    mean, log_std = module.encoder(seen[0])
    posterior, prior = Independent(Normal(mean, log_std.exp()), 1), Independent(Normal(torch.zeros(4), 1.0), 1)
    likelihood = [Independent(Bernoulli(logits=module.decoder(z)), 3).log_prob(seen[0]) for z in terms.latents]
    torch.testing.assert_close(terms.reconstruction, -torch.stack(likelihood).mean(dim=0))
    torch.testing.assert_close(terms.kl, kl_divergence(mean, log_std))
    if terms.log_weights is not None:
        for z, log_p_x, log_weight in zip(terms.latents, likelihood, terms.log_weights, strict=True):
            expected = log_p_x + prior.log_prob(z) - posterior.log_prob(z)
            torch.testing.assert_close(log_weight, expected)


def test_draws_have_the_posteriors_mean_and_spread(module_of: Callable[..., VaeModule], images: Tensor) -> None:
    module = module_of(objective={"name": "iwae", "k": 4000}, likelihood={"name": "gaussian", "scale": 1.0})
    with torch.no_grad():
        mean, log_std = module.encoder(images[:2] / 255)
        latents = module.terms(whole(images[:2])).latents
    torch.testing.assert_close(latents.mean(dim=0), mean, atol=0.08, rtol=0)
    torch.testing.assert_close(latents.std(dim=0), log_std.exp(), atol=0.06, rtol=0)
    flat = (latents - mean).flatten(1).T
    assert (torch.corrcoef(flat) - torch.eye(8)).abs().max() < 0.08, "dimensions and images are drawn apart"


def test_an_autoencoder_has_no_kl_and_decodes_its_mean(module_of: Callable[..., VaeModule], images: Tensor) -> None:
    module = module_of(objective=AUTOENCODER, likelihood=GREY)
    terms = module.terms(whole(images))
    assert not terms.kl.any()
    (mean,) = module.encoder(images / 255)
    assert torch.equal(terms.latents, mean[None])
    expected = -module.likelihood.log_prob({"logits": module.decoder(mean)}, images / 255)
    torch.testing.assert_close(terms.reconstruction, expected)
    assert module.loss(terms).item() == pytest.approx(expected.mean().item())


def test_iwae_gives_the_decoder_the_bounds_gradient_and_the_encoder_another(
    module_of: Callable[..., VaeModule], images: Tensor
) -> None:
    def gradients(loss: Callable[[VaeModule, LossTerms], Tensor]) -> dict[str, Tensor]:
        module = module_of(**KINDS["iwae"])
        torch.nn.init.normal_(module.decoder.body[0].weight)  # or the draws would not differ in weight
        loss(module, module.terms(whole(images))).backward()
        return {name: weight.grad for name, weight in module.named_parameters() if ".first." not in name}

    dreg = gradients(lambda module, terms: module.loss(terms))
    plain = gradients(lambda _, terms: -iwae(terms.log_weights).mean())
    for name, gradient in dreg.items():
        assert gradient.any() or ".norm." in name, name
        assert torch.allclose(gradient, plain[name], rtol=1e-3, atol=1e-5) == (
            name.startswith("decoder.") or not gradient.any()
        ), name


# In a loop.


class Recorder(Callback):
    """Records what every step sees."""

    def __init__(self) -> None:
        self.train: list[Tensor] = []
        self.watched: list[Tensor] = []
        self.kl_weights: list[float] = []
        self.learning_rates: list[float] = []
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.random_states: list[bytes] = []

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: ImageBatch, *_: Any) -> None:
        self.train.append(batch.images.clone())
        if isinstance(pl_module.recipe.objective, Elbo):
            self.kl_weights.append(pl_module.kl_weight(pl_module.recipe.objective))
        self.random_states.append(torch.random.get_rng_state().numpy().tobytes())

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.learning_rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.losses.append(outputs["loss"].item())
        self.norms.append(get_total_norm([p.grad for p in pl_module.parameters() if p.grad is not None]).item())

    def on_validation_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: ImageBatch, *_: Any) -> None:
        self.watched.append(batch.images.clone())


Run = tuple[VaeModule, Recorder, L.Trainer]


def fit(recipe: Recipe, train: Pixels, test: Pixels, *callbacks: Callback) -> Run:
    torch.manual_seed(0)
    module, recorder = VaeModule(recipe, channels=1, size=28), Recorder()
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=recipe.training.epochs,
        callbacks=[recorder, *callbacks],
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(module, ImageData(train, test, batch_size=recipe.training.batch_size, seed=recipe.seed))
    return module, recorder, trainer


@pytest.fixture
def run(recipe_of: Callable[..., Recipe], digits: Pixels) -> Callable[..., Run]:
    """Fit a recipe to the digits."""

    def run(*callbacks: Callback, **changes: Any) -> Run:
        splits = digits[:TRAIN_IMAGES, None], digits[TRAIN_IMAGES:, None]
        return fit(recipe_of(**changes), *splits, *callbacks)

    return run


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory, digits: Pixels) -> Recorder:
    """Of three epochs with a warm-up of one epoch."""
    recipe = tiny_recipe(tmp_path_factory.mktemp("recipe"), "tiny", architecture=MLP)
    return fit(recipe, digits[:TRAIN_IMAGES, None], digits[TRAIN_IMAGES:, None])[1]


def test_each_epoch_shows_each_training_image_once_in_its_own_order(recorder: Recorder, digits: Pixels) -> None:
    epochs = torch.cat(recorder.train).numpy().reshape(3, TRAIN_IMAGES, 1, 28, 28)
    for epoch, images in enumerate(epochs):
        order = np.random.default_rng([7, epoch]).permutation(TRAIN_IMAGES)
        assert np.array_equal(images, digits[:TRAIN_IMAGES, None][order])


def test_watched_images_keep_their_order(recorder: Recorder, digits: Pixels) -> None:
    for images in torch.cat(recorder.watched).numpy().reshape(3, -1, 1, 28, 28):
        assert np.array_equal(images, digits[TRAIN_IMAGES:, None])


def test_the_weight_of_the_kl_rises_linearly_to_one(recorder: Recorder) -> None:
    rise = [(step + 1) / STEPS for step in range(STEPS)]
    assert recorder.kl_weights == pytest.approx(rise + [1.0] * 2 * STEPS)


def test_the_learning_rate_rises_and_falls_along_a_cosine(recorder: Recorder) -> None:
    total = 3 * STEPS
    expected = [1e-2 * min(1, (step + 1) / 4) * 0.5 * (1 + math.cos(math.pi * step / total)) for step in range(total)]
    assert recorder.learning_rates == pytest.approx(expected)
    assert recorder.learning_rates[-1] < 1e-3


PLAIN = {"schedule": "constant", "learning_rate_warmup_steps": 0, "epochs": 1}


def test_without_schedule_and_warm_ups_both_rates_are_constant(run: Callable[..., Run]) -> None:
    _, recorder, _ = run(objective=ELBO, training=PLAIN)
    assert set(recorder.kl_weights) == {1.0}
    assert set(recorder.learning_rates) == {1e-2}


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"optimizer": "adam"}, torch.optim.Adam),
        ({"optimizer": "adamax"}, torch.optim.Adamax),
        ({"optimizer": "adamw", "weight_decay": 0.3}, torch.optim.AdamW),
    ],
    ids=str,
)
def test_the_recipe_names_the_optimizer(run: Callable[..., Run], options: dict[str, Any], kind: type) -> None:
    module, _, trainer = run(objective=ELBO, likelihood=GAUSSIAN, training={"epochs": 1} | options)
    optimizer = trainer.optimizers[0]
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == options.get("weight_decay", 0.0)
    assert group.get("decoupled_weight_decay", False) == ("weight_decay" in options)
    assert len(group["params"]) == len(list(module.parameters())), "the scale of the likelihood is one of them"
    assert module.likelihood.log_scale != 0


def test_beta_weighs_the_kl_once_the_warm_up_is_over(run: Callable[..., Run]) -> None:
    objective = {"name": "elbo", "beta": 3.0, "kl_warmup_epochs": 1}
    _, recorder, trainer = run(objective=objective, training={"epochs": 2})
    rise = [3 * (step + 1) / STEPS for step in range(STEPS)]
    assert recorder.kl_weights == pytest.approx(rise + [3.0] * STEPS)
    logged = trainer.callback_metrics
    loss = logged["train/reconstruction"] + 3 * logged["train/kl"]
    assert np.mean(recorder.losses[STEPS:]) == pytest.approx(loss.item(), rel=1e-5)
    elbo = logged["train/reconstruction"] + logged["train/kl"]
    assert logged["train/negative_elbo"].item() == pytest.approx(elbo.item(), rel=1e-6), "what is logged is unweighted"


def test_free_bits_are_paid_whether_used_or_not(run: Callable[..., Run]) -> None:
    _, recorder, trainer = run(objective={"name": "elbo", "free_bits": 1000.0}, training=PLAIN)
    logged = trainer.callback_metrics
    assert logged["train/kl"] < 1000
    assert np.mean(recorder.losses) == pytest.approx(logged["train/reconstruction"].item() + 4 * 1000, rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_logged_is_the_mean_over_the_images(run: Callable[..., Run], digits: Pixels, kind: str) -> None:
    """And not that over batches, of which the last is smaller: the watched images are measured again here."""
    module, recorder, trainer = run(**KINDS[kind], training={"epochs": 1, "batch_size": 40})
    module.on_validation_epoch_start()
    with torch.no_grad():
        images = torch.from_numpy(digits[TRAIN_IMAGES:, None].copy())
        parts = [module.terms(batch) for batch in ImageBatches(images, 40)]
    reconstruction, kl = (torch.cat(values) for values in list(zip(*parts, strict=True))[:2])
    expected = {"reconstruction": reconstruction, "kl": kl.sum(dim=1)}
    expected["negative_elbo"] = expected["reconstruction"] + expected["kl"]
    if "iwae" in kind:
        expected["negative_iwae"] = torch.cat([-iwae(part.log_weights) for part in parts])
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert set(logged) == {f"{split}/{name}" for split in ("train", "test") for name in expected} | {
        "train/skipped_steps"
    }
    assert module.term_names == list(expected)
    for name, values in expected.items():
        assert logged[f"test/{name}"] == pytest.approx(values.mean().item(), rel=1e-4, abs=1e-5)
    if "iwae" not in kind:  # whose loss has no meaning but in its gradient
        assert logged["train/negative_elbo"] == pytest.approx(
            np.average(recorder.losses, weights=[40] * 7 + [20]), rel=1e-5
        )


def test_an_image_that_is_not_finite_counts_for_nothing_in_the_log(run: Callable[..., Run]) -> None:
    class Break(Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
            def spoil(_: Any, __: Any, heads: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
                mean = heads[0].clone()
                mean[0] = math.inf
                return (mean, *heads[1:])

            self.handle = pl_module.encoder.register_forward_hook(spoil)

        def on_train_batch_end(self, *_: Any) -> None:
            self.handle.remove()

    logged = run(Break(), objective=ELBO, training=PLAIN)[2].callback_metrics
    assert logged["train/skipped_steps"] == 1
    assert all(value.isfinite() for value in logged.values())


CONVOLUTIONAL = [{"name": "article"}, {"name": "residual", "width": 4, "depth": 1, "hidden": 8}]


@pytest.mark.parametrize("architecture", CONVOLUTIONAL, ids=str)
def test_convolutions_see_one_layout(
    module_of: Callable[..., VaeModule], images: Tensor, architecture: dict[str, Any]
) -> None:
    module, seen = module_of(objective=ELBO, architecture=architecture), list[Tensor]()
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.SiLU):
            layer.register_forward_hook(lambda _, inputs, output: seen.extend([inputs[0], output]))
    module.terms(whole(images))
    maps = [tensor for tensor in seen if tensor.ndim == 4]
    assert len(maps) > 6
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in maps)


def test_set_aside_images_are_logged_as_what_they_are(run: Callable[..., Run]) -> None:
    logged = run(objective=ELBO, data={"validation": 10}, training=PLAIN)[2].callback_metrics
    assert {name.split("/")[0] for name in logged} == {"train", "validation"}


class Seen(Callback):
    """What the encoder is given in the first step of every epoch, of either kind."""

    def __init__(self) -> None:
        self.train: list[Tensor] = []
        self.validation: list[Tensor] = []

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        def note(_: Any, inputs: tuple[Tensor, ...], __: Any) -> None:
            of = self.validation if trainer.validating or not pl_module.training else self.train
            if len(of) == trainer.current_epoch:
                of.append(inputs[0].clone())

        pl_module.encoder.register_forward_hook(note)


def test_every_epoch_has_draws_of_its_own_and_validation_always_the_same(recipe_of: Callable[..., Recipe]) -> None:
    """On images that are all alike, so that nothing differs but the draws."""
    seen, grey = Seen(), np.full((25, 1, 28, 28), 128, np.uint8)
    recorder = fit(recipe_of(objective=ELBO, training={"epochs": 5}), grey, grey, seen)[1]
    assert (len(seen.train), len(seen.validation)) == (5, 5)
    assert len({pixels.numpy().tobytes() for pixels in seen.train}) == 5
    assert len({pixels.numpy().tobytes() for pixels in seen.validation}) == 1
    assert not any(torch.equal(pixels, seen.validation[0]) for pixels in seen.train)
    other = Seen()
    fit(recipe_of(objective=ELBO, training={"epochs": 2}, seed=8), grey, grey, other)
    assert not torch.equal(other.train[0], seen.train[0])
    assert not torch.equal(other.validation[0], seen.validation[0])
    assert len(set(recorder.random_states)) == 5, "and so has what layers draw for themselves"


# Clipping and skipping.


def test_a_long_gradient_is_shortened(run: Callable[..., Run]) -> None:
    _, free, _ = run(objective=ELBO, training=PLAIN | {"gradient_clip": None})
    _, clipped, trainer = run(objective=ELBO, training=PLAIN | {"gradient_clip": 1.0, "gradient_skip": None})
    assert min(free.norms) > 2
    assert clipped.norms == pytest.approx([1.0] * STEPS, rel=1e-4)
    assert trainer.callback_metrics["train/skipped_steps"] == 0


class Spoil(Callback):
    """Fills the gradient of the seventh step, and notes weights and optimizer around it."""

    STEP = 6

    def __init__(self, value: float) -> None:
        self.value = value
        self.states: dict[str, Any] = {}

    def on_after_backward(self, trainer: L.Trainer, pl_module: Any) -> None:
        if trainer.global_step == self.STEP:
            for weight in pl_module.parameters():
                weight.grad.fill_(self.value)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx in (self.STEP, self.STEP + 1):
            self._note({self.STEP: "before", self.STEP + 1: "after"}[batch_idx], trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.STEP + 1:
            self._note("next", trainer, pl_module)

    def _note(self, name: str, trainer: L.Trainer, pl_module: Any) -> None:
        state = trainer.optimizers[0].state_dict()["state"]
        tensors = {f"{index}/{key}": value for index, part in state.items() for key, value in part.items()}
        self.states[name] = deepcopy(pl_module.state_dict() | tensors)

    def same(self, one: str, other: str) -> set[str]:
        return {name for name, value in self.states[one].items() if torch.equal(value, self.states[other][name])}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e6])
@pytest.mark.parametrize("optimizer", [{"optimizer": "adam"}, {"optimizer": "adamw", "weight_decay": 0.1}], ids=str)
def test_a_step_with_a_bad_gradient_changes_nothing_and_is_counted(
    run: Callable[..., Run], value: float, optimizer: dict[str, Any]
) -> None:
    average = get_ema_multi_avg_fn(0.9)  # type: ignore[no-untyped-call]
    spoil, ema = Spoil(value), WeightAveraging(use_buffers=False, multi_avg_fn=average)
    module, _, trainer = run(spoil, ema, objective=ELBO, training=PLAIN | optimizer)
    names = set(spoil.states["before"])
    assert any("exp_avg" in name for name in names)
    assert any("/step" in name for name in names)
    assert spoil.same("before", "after") == names
    assert not spoil.same("after", "next") & {name for name in names if ".second." in name or "/step" in name}
    assert trainer.callback_metrics["train/skipped_steps"] == 1
    # At the end the averaged weights are the module's.
    assert all(weight.isfinite().all() for weight in module.parameters())
    assert trainer.callback_metrics["test/negative_elbo"].isfinite()


@pytest.mark.parametrize(("skip", "skipped"), [(1e6, 0), (None, 0), (500.0, 1)])
def test_only_a_gradient_longer_than_the_recipe_says_is_skipped(
    run: Callable[..., Run], skip: float | None, skipped: int
) -> None:
    spoil = Spoil(10.0)
    training = PLAIN | {"gradient_clip": None, "gradient_skip": skip, "learning_rate": 1e-6}
    module, recorder, trainer = run(spoil, objective=ELBO, training=training)
    count = sum(weight.numel() for weight in module.parameters())
    assert 500 < 10 * math.sqrt(count) < 1e6
    assert max(recorder.norms[: Spoil.STEP]) < 500
    assert trainer.callback_metrics["train/skipped_steps"] == skipped
    assert bool(spoil.same("before", "after")) == bool(skipped)


def test_an_epoch_without_a_step_ends_the_training(run: Callable[..., Run]) -> None:
    with pytest.raises(RecipeError, match="every step of an epoch was skipped"):
        run(objective=ELBO, training=PLAIN | {"gradient_clip": None, "gradient_skip": 1e-3})


def test_the_commit_is_the_repositorys() -> None:
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    answer = subprocess.run(git, capture_output=True, text=True)
    commit = current_commit()
    if answer.returncode:
        assert commit is None
    else:
        assert commit is not None
        assert commit.removesuffix("-dirty") == answer.stdout.strip()


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert current_commit() is None


@pytest.mark.filterwarnings("ignore")  # of torch.compile itself
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.slow(reason="compiles C++")
def test_compiled_nets_give_the_same_loss_and_gradient(module_of: Callable[..., VaeModule], images: Tensor) -> None:
    plain, compiled = module_of(**KINDS["iwae"]), module_of(**KINDS["iwae"])
    compiled.compile_nets()
    losses = []
    for module in (plain, compiled):
        loss = module.loss(module.terms(whole(images)))
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss)
    torch.testing.assert_close(*losses)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for ours, reference in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-3, atol=1e-4)


def test_skipped_steps_are_counted_epoch_by_epoch(run: Callable[..., Run]) -> None:
    assert run(Spoil(math.nan), objective=ELBO, training={"epochs": 2})[2].callback_metrics["train/skipped_steps"] == 0
