"""Recipes: what is shipped loads, what is wrong is refused by file and key."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MODELS
from tests.training.conftest import TINY, tiny_recipe, write_recipe
from training.errors import RecipeError
from training.recipe import RECIPES, Recipe, load_recipe

NAMED = sorted(path.stem for path in RECIPES.glob("*.toml"))
UNSHIPPED = {"faces"}
"""Recipes whose bundles are not in models/."""
SHIPPED = sorted({*NAMED} - UNSHIPPED)
FILES = sorted(RECIPES.rglob("*.toml"))


def test_these_recipes_have_names() -> None:
    assert NAMED == ["digits-ae", "emoji", "faces", "mnist", "mnist-2d", "mnist-iwae"]


@pytest.mark.parametrize("name", NAMED)
def test_a_named_recipe_loads_by_its_name_and_by_its_path(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_recipe(str(RECIPES / f"{name}.toml")) == recipe


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(RECIPES)))
def test_a_shipped_recipe_is_taken_at_its_word(path: Path) -> None:
    values = tomllib.loads(path.read_text())
    read = load_recipe(str(path)).model_dump(mode="json")
    assert read["name"] == path.stem
    for key, value in values.items():
        assert (read[key] | value == read[key]) if isinstance(value, dict) else read[key] == value


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_shipped_recipe_is_contrasted_with_is_a_plain_autoencoder(name: str) -> None:
    contrast = load_recipe(name).figures.contrast
    assert contrast == {"mnist-2d": "digits-ae"}.get(name)
    if contrast is not None:
        assert not load_recipe(contrast).stochastic
        assert load_recipe(contrast).latent == load_recipe(name).latent


@pytest.mark.parametrize("directory", sorted(MODELS.glob("*/*")), ids=lambda path: str(path.relative_to(MODELS)))
def test_a_shipped_bundles_own_recipe_still_loads(directory: Path) -> None:
    recipe = load_recipe(str(directory / "recipe.toml"))
    assert (recipe.name, str(recipe.version)) == directory.parts[-2:]


# What follows from what.

OBJECTIVES = {"elbo": {"name": "elbo"}, "iwae": {"name": "iwae", "k": 3}, "autoencoder": {"name": "autoencoder"}}
LIKELIHOODS: dict[str, dict[str, Any]] = {
    "dynamic": {"name": "bernoulli"},
    "static": {"name": "bernoulli", "binarization": "static"},
    "grey": {"name": "grey_cross_entropy"},
    "gaussian": {"name": "gaussian", "scale": 0.5},
    "learned": {"name": "gaussian", "scale": "learned"},
    "logistic": {"name": "discretized_logistic"},
}


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_goes_with_every_likelihood_but_one(tmp_path: Path, objective: str, likelihood: str) -> None:
    def make() -> Recipe:
        return tiny_recipe(tmp_path, "tiny", objective=OBJECTIVES[objective], likelihood=LIKELIHOODS[likelihood])

    if (objective, likelihood) == ("iwae", "grey"):
        with pytest.raises(ValueError, match="grey_cross_entropy is not one"):
            make()
    else:
        recipe = make()
        assert recipe.stochastic == (objective != "autoencoder")
        assert recipe.binarization == (likelihood if likelihood in ("dynamic", "static") else "none")


def test_set_aside_images_are_watched_where_there_are_any(tmp_path: Path) -> None:
    assert tiny_recipe(tmp_path, "tiny").watched == "test"
    assert tiny_recipe(tmp_path, "tiny", data={"validation": 10}).watched == "validation"


LEAST = """
name = "least"
version = 1
description = "Nothing that need not be said."
latent = 2
[architecture]
name = "residual"
"""
SPELLED_OUT = """
name = "least"
version = 1
description = "Nothing that need not be said."
seed = 0
latent = 2
[data]
dataset = "mnist"
validation = 0
[architecture]
name = "residual"
width = 32
depth = 1
hidden = 256
[objective]
name = "elbo"
beta = 1.0
free_bits = 0.0
kl_warmup_epochs = 0
[likelihood]
name = "bernoulli"
binarization = "dynamic"
[training]
epochs = 20
batch_size = 128
optimizer = "adam"
learning_rate = 1e-3
schedule = "constant"
learning_rate_warmup_steps = 0
precision = "32-true"
[figures]
"""


def test_what_is_left_out_is_what_the_documentation_says(tmp_path: Path) -> None:
    least, spelled_out = (load_recipe(str(write_recipe(tmp_path, "r", text))) for text in (LEAST, SPELLED_OUT))
    assert least == spelled_out
    optional = {name for name, value in least.training.model_dump().items() if value is None}
    assert optional == {
        "weight_decay",
        "gradient_clip",
        "gradient_skip",
        "ema_decay",
        "early_stopping_epochs",
        "start",
    }


# What replaces what in the tiny recipe, and the key that the message must name.


def objective(line: str) -> tuple[str, str]:
    return 'name = "elbo"', f'name = "elbo"\n{line}'


def iwae(lines: str) -> tuple[str, str]:
    return 'name = "elbo"\nkl_warmup_epochs = 1', f'name = "iwae"\n{lines}'


def likelihood(name: str, lines: str) -> tuple[str, str]:
    return 'name = "bernoulli"\nbinarization = "dynamic"', f'name = "{name}"\n{lines}'


WRONG = {
    "unknown key": ("latent = 4", "latent = 4\ncolour = 1", "colour"),
    "unknown key of a table": ("epochs = 3", "epochs = 3\nepoch = 3", "training.epoch"),
    "unknown key of an architecture": ("width = 4", "width = 4\nheads = 2", "architecture.residual.heads"),
    "unknown table": ("[training]", "[optimizer]\n[training]", "optimizer"),
    "missing key": ("latent = 4", "", "latent"),
    "missing table": ('[architecture]\nname = "residual"\nwidth = 4\nhidden = 16', "", "architecture"),
    "text for a number": ("latent = 4", 'latent = "4"', "latent"),
    "a float for an integer": ("epochs = 3", "epochs = 3.0", "training.epochs"),
    "a truth for an integer": ("epochs = 3", "epochs = true", "training.epochs"),
    "no dimension": ("latent = 4", "latent = 0", "latent"),
    "no epoch": ("epochs = 3", "epochs = 0", "training.epochs"),
    "a negative seed": ("seed = 7", "seed = -1", "seed"),
    "a seed that clients cannot hold": ("seed = 7", "seed = 2147483648", "seed"),
    "a path for a name": ('name = "tiny"', 'name = "../tiny"', "name"),
    "a capital in the name": ('name = "tiny"', 'name = "Tiny"', "name"),
    "no learning rate": ("learning_rate = 1e-2", "learning_rate = 0.0", "training.learning_rate"),
    "a decay of one": ("ema_decay = 0.9", "ema_decay = 1.0", "training.ema_decay"),
    "an odd width": ("width = 4", "width = 3", "architecture.residual.width"),
    "unknown architecture": ('name = "residual"', 'name = "transformer"', "architecture"),
    "unknown schedule": ('schedule = "cosine"', 'schedule = "linear"', "training.schedule"),
    "unknown optimizer": ("[training]", '[training]\noptimizer = "sgd"', "training.optimizer"),
    "unknown precision": ("[training]", '[training]\nprecision = "64"', "training.precision"),
    "unknown objective": ('name = "elbo"', 'name = "elboe"', "objective"),
    "unknown likelihood": ('name = "bernoulli"', 'name = "poisson"', "likelihood"),
    "unknown binarization": ('binarization = "dynamic"', 'binarization = "once"', "likelihood.bernoulli.binarization"),
    "unknown data set": ("[architecture]", '[data]\ndataset = "svhn"\n[architecture]', "data"),
    "a share of images to set aside": (
        "[architecture]",
        '[data]\ndataset = "mnist"\nvalidation = 0.1\n[architecture]',
        "data.mnist.validation",
    ),
    "no beta": (*objective("beta = 0.0"), "objective.elbo.beta"),
    "negative free bits": (*objective("free_bits = -0.1"), "objective.elbo.free_bits"),
    "endless free bits": (*objective("free_bits = inf"), "objective.elbo.free_bits"),
    "beta in iwae": (*iwae("k = 2\nbeta = 2.0"), "objective.iwae.beta"),
    "a warm-up in iwae": (*iwae("k = 2\nkl_warmup_epochs = 1"), "objective.iwae.kl_warmup_epochs"),
    "iwae without draws": (*iwae(""), "objective.iwae.k"),
    "iwae of one draw, which is the ELBO": (*iwae("k = 1"), "objective.iwae.k"),
    "draws in the ELBO": (*objective("k = 2"), "objective.elbo.k"),
    "warming up the KL that an autoencoder lacks": (
        'name = "elbo"',
        'name = "autoencoder"',
        "objective.autoencoder.kl_warmup_epochs",
    ),
    "a scale of Bernoulli": (*likelihood("bernoulli", "scale = 1.0"), "likelihood.bernoulli.scale"),
    "no scale": (*likelihood("gaussian", ""), "likelihood.gaussian.scale"),
    "a scale of nothing": (*likelihood("gaussian", "scale = 0.0"), "likelihood.gaussian.scale"),
    "a scale of words": (*likelihood("gaussian", 'scale = "fixed"'), "likelihood.gaussian.scale"),
    "binarizing for Gaussian pixels": (
        *likelihood("gaussian", 'scale = 1.0\nbinarization = "static"'),
        "likelihood.gaussian.binarization",
    ),
    "no clip": ("gradient_clip = 100.0", "gradient_clip = 0.0", "training.gradient_clip"),
    "an endless clip": ("gradient_clip = 100.0", "gradient_clip = inf", "training.gradient_clip"),
    "negative weight decay": ("[training]", "[training]\nweight_decay = -0.1", "training.weight_decay"),
    "no patience": ("[training]", "[training]\nearly_stopping_epochs = 0", "training.early_stopping_epochs"),
    "a start without a version": ("[training]", '[training]\nstart = "mnist"', "training.start"),
    "a start of version zero": ("[training]", '[training]\nstart = "mnist/0"', "training.start"),
    "a start elsewhere": ("[training]", '[training]\nstart = "../mnist/1"', "training.start"),
    "a negative warm-up": (
        "learning_rate_warmup_steps = 4",
        "learning_rate_warmup_steps = -1",
        "training.learning_rate_warmup_steps",
    ),
    # Each possible alone, but not together.
    "IWAE of what is no likelihood": (
        TINY["tiny"][TINY["tiny"].index("[objective]") : TINY["tiny"].index("[training]")],
        '[objective]\nname = "iwae"\nk = 2\n[likelihood]\nname = "grey_cross_entropy"\n',
        "grey_cross_entropy is not one",
    ),
    "warming up to the end": ("kl_warmup_epochs = 1", "kl_warmup_epochs = 3", "objective.kl_warmup_epochs"),
    "weight decay without adamw": (
        "[training]",
        "[training]\nweight_decay = 0.1",
        "weight_decay needs optimizer = 'adamw'",
    ),
    "adamw without weight decay": (
        "[training]",
        '[training]\noptimizer = "adamw"',
        "weight_decay needs optimizer = 'adamw'",
    ),
    "skipping what would be clipped": ("gradient_skip = 1e6", "gradient_skip = 100.0", "gradient_skip must be larger"),
    "stopping early with nothing to watch": (
        "[training]",
        "[training]\nearly_stopping_epochs = 2",
        "training.early_stopping_epochs needs validation images",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_named_by_file_and_key(tmp_path: Path, wrong: str) -> None:
    old, new, key = WRONG[wrong]
    assert old in TINY["tiny"]
    path = write_recipe(tmp_path, "wrong", TINY["tiny"].replace(old, new, 1))
    with pytest.raises(RecipeError, match=rf"^{re.escape(str(path))}: .*{re.escape(key)}(\W|$)"):
        load_recipe(str(path))


def test_the_tiny_recipe_itself_is_right(tmp_path: Path) -> None:
    recipe = load_recipe(str(write_recipe(tmp_path, "tiny")))
    assert recipe.objective.kl_warmup_epochs == 1


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    text = TINY["tiny"].replace("latent = 4", "latent = 0").replace("epochs = 3", "epochs = 0")
    with pytest.raises(RecipeError, match=r"latent.*training\.epochs"):
        load_recipe(str(write_recipe(tmp_path, "wrong", text)))


def test_what_is_not_toml_is_refused_by_its_name(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "wrong", "name = \n")
    with pytest.raises(RecipeError, match=rf"^{re.escape(str(path))} is not TOML"):
        load_recipe(str(path))


def test_what_is_not_text_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "wrong.toml"
    path.write_bytes(b'name = "\xff"\n')
    with pytest.raises(RecipeError, match=re.escape(str(path))):
        load_recipe(str(path))


@pytest.mark.parametrize("name", ["nope", "elsewhere/nope.toml", "../recipes"])
def test_an_unknown_recipe_is_answered_with_the_known_ones(name: str) -> None:
    with pytest.raises(
        RecipeError, match=rf"{re.escape(Path(name).name)}.*digits-ae, emoji, faces, mnist, mnist-2d, mnist-iwae"
    ):
        load_recipe(name)


def test_a_recipe_cannot_be_changed(tmp_path: Path) -> None:
    recipe = load_recipe(str(write_recipe(tmp_path, "tiny")))
    with pytest.raises(ValueError, match="frozen"):
        recipe.latent = 5
