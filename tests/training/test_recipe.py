"""Recipes: what is shipped loads, what is wrong is refused by file and key."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.training.conftest import TINY, write_recipe
from training.recipe import RECIPES, RecipeError, load_recipe

SHIPPED = sorted(path.stem for path in RECIPES.glob("*.toml"))


def test_these_recipes_are_shipped() -> None:
    assert SHIPPED == ["digits-ae", "mnist", "mnist-2d"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_loads_by_its_name_and_by_its_path(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_recipe(str(RECIPES / f"{name}.toml")) == recipe


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_is_taken_at_its_word(name: str) -> None:
    values = tomllib.loads((RECIPES / f"{name}.toml").read_text())
    read = load_recipe(name).model_dump(mode="json")
    for key, value in values.items():
        assert (read[key] | value == read[key]) if isinstance(value, dict) else read[key] == value


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_shipped_recipe_is_contrasted_with_is_a_plain_autoencoder(name: str) -> None:
    contrast = load_recipe(name).figures.contrast
    assert contrast == {"mnist-2d": "digits-ae"}.get(name)
    if contrast is not None:
        assert not load_recipe(contrast).stochastic
        assert load_recipe(contrast).latent == load_recipe(name).latent


@pytest.mark.parametrize(
    ("name", "stochastic", "binarization"),
    [("mnist", True, "dynamic"), ("mnist-2d", True, "none"), ("digits-ae", False, "none")],
)
def test_posterior_and_binarization_follow_from_the_objective(name: str, stochastic: bool, binarization: str) -> None:
    recipe = load_recipe(name)
    assert recipe.stochastic is stochastic
    assert recipe.binarization == binarization


# What replaces what in the tiny recipe, and the key that the message must name.
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
    "unknown reconstruction": ('"bernoulli"', '"gaussian"', "objective.reconstruction"),
    "warming up the KL that an autoencoder lacks": (
        "[objective]",
        '[objective]\nname = "autoencoder"',
        "kl_warmup_epochs",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_named_by_file_and_key(tmp_path: Path, wrong: str) -> None:
    old, new, key = WRONG[wrong]
    assert old in TINY["tiny"]
    path = write_recipe(tmp_path, "wrong", TINY["tiny"].replace(old, new, 1))
    with pytest.raises(RecipeError, match=rf"^{re.escape(str(path))}: .*{re.escape(key)}\b"):
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
    with pytest.raises(RecipeError, match=rf"{re.escape(Path(name).name)}.*digits-ae, mnist, mnist-2d"):
        load_recipe(name)


def test_a_recipe_cannot_be_changed(tmp_path: Path) -> None:
    recipe = load_recipe(str(write_recipe(tmp_path, "tiny")))
    with pytest.raises(ValueError, match="frozen"):
        recipe.latent = 5
