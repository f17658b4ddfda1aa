"""A recipe: one TOML file that says everything needed to train one bundle version again."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.architectures import ArchitectureOptions

RECIPES = Path(__file__).parent / "recipes"

Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class RecipeError(Exception):
    """A recipe that cannot be used; the message names the file and the key."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(_Table):
    """What is learnt from."""

    dataset: Literal["mnist"] = "mnist"


class Objective(_Table):
    """What is minimised, in nats an image."""

    name: Literal["elbo", "autoencoder"] = "elbo"
    reconstruction: Literal["bernoulli", "grey_cross_entropy"] = "bernoulli"
    """`bernoulli` draws binary pixels anew from the grey values in every epoch (dynamic binarization), so that
    -log p(x|z) is a likelihood. `grey_cross_entropy` is the cross entropy with the grey values themselves, as many
    tutorials train: it is no likelihood, and its values compare with nothing."""
    kl_warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs over which the weight of the KL term rises linearly from 0 to 1."""

    @model_validator(mode="after")
    def _no_kl_to_warm_up(self) -> "Objective":
        if self.name == "autoencoder" and self.kl_warmup_epochs:
            raise ValueError("kl_warmup_epochs needs name = 'elbo': an autoencoder has no KL term")
        return self


class Training(_Table):
    """How it is minimised."""

    epochs: Positive = 20
    batch_size: Positive = 128
    optimizer: Literal["adam", "adamax"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` falls to zero at the last step."""
    learning_rate_warmup_steps: Annotated[int, Field(ge=0)] = 0
    gradient_clip: Annotated[float, Field(gt=0)] | None = None
    """Largest gradient norm; a longer gradient is shortened to it."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay a step of the exponential moving average of the weights; where set, the average is what is exported."""


class Figures(_Table):
    """What the card shows."""

    contrast: str | None = None
    """Name of a plain autoencoder's bundle to draw beside this one."""


class Recipe(_Table):
    """One bundle version: what it learns from, what it is made of, how it is trained."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    version: Positive
    description: str
    seed: Seed = 0
    latent: Positive
    """Latent dimensions."""
    data: Data = Data()
    architecture: ArchitectureOptions
    objective: Objective = Objective()
    training: Training = Training()
    figures: Figures = Figures()

    @property
    def stochastic(self) -> bool:
        """Whether the encoder has a posterior; a plain autoencoder's has only a mean."""
        return self.objective.name == "elbo"

    @property
    def binarization(self) -> Literal["dynamic", "none"]:
        """How pixels become binary in training."""
        return "dynamic" if self.objective.reconstruction == "bernoulli" else "none"


def load_recipe(name_or_path: str) -> Recipe:
    """Read a recipe by its name in `training/recipes` or by the path of its file.

    Raises:
        RecipeError: there is no such file, it is not TOML, or a key is unknown, missing or of the wrong type.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = RECIPES / f"{name_or_path}.toml"
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text()))
    except OSError:
        known = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise RecipeError(f"no recipe at {path}; the recipes here are {known}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'recipe'}: {e['msg']}" for e in error.errors())
        raise RecipeError(f"{path}: {wrong}") from None
