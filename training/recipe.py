"""A recipe: one TOML file with everything needed to train one bundle version again."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.architectures import ArchitectureOptions
from training.data import DataOptions, idx
from training.data.dataset import Fraction
from training.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"

Positive = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Elbo(_Table):
    """Minimize the negative ELBO, reconstruction + beta * KL (Kingma & Welling 2013)."""

    name: Literal["elbo"] = "elbo"
    beta: PositiveFloat = 1.0
    """Weight of the KL term. A weight other than 1 trains a beta-VAE (Higgins et al. 2017): the loss no longer bounds
    log p(x)."""
    free_bits: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """KL in nats that each latent dimension may use at no cost, on average over a process's share of a batch (Kingma et
    al. 2016, appendix C.8)."""
    kl_warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs over which the weight of the KL term rises linearly from 0 to beta."""


class Iwae(_Table):
    """Maximize the IWAE-k bound on log p(x) (Burda, Grosse & Salakhutdinov 2015).

    The encoder's gradient is doubly reparameterized (DReG: Tucker et al. 2018), so that its signal does not fade as k
    grows. Models trained with IWAE have a better NLL and a looser ELBO.
    """

    name: Literal["iwae"]
    k: Annotated[int, Field(ge=2)]
    """Draws per image."""


class Autoencoder(_Table):
    """Minimize the reconstruction alone: a plain autoencoder, whose encoder has no posterior. For comparison."""

    name: Literal["autoencoder"]


class Bernoulli(_Table):
    """Binary pixels, with a probability per pixel."""

    name: Literal["bernoulli"] = "bernoulli"
    binarization: Literal["dynamic", "static"] = "dynamic"
    """How gray pixels become binary. `dynamic` draws anew at every use of an image. `static` draws once, with the
    recipe's seed; the usual binarized MNIST is static too, with other draws."""


class GreyCrossEntropy(_Table):
    """The cross entropy with the gray values themselves, as in many tutorials. It is not a likelihood: its values do
    not compare with those of other models."""

    name: Literal["grey_cross_entropy"]


class Gaussian(_Table):
    """Pixels in [0, 1] with a normal distribution around the decoder's mean. It is a density: nats can be negative."""

    name: Literal["gaussian"]
    scale: PositiveFloat | Literal["learned"]
    """Standard deviation of all pixels; `learned` trains it with the weights (Rybkin et al. 2021)."""


class DiscretizedLogistic(_Table):
    """8-bit pixels: a logistic distribution per pixel, with the decoder's mean and scale, integrated over each of
    the 256 levels (Kingma et al. 2016, appendix C.1; Salimans et al. 2017). Its nats convert to bits per dimension."""

    name: Literal["discretized_logistic"]


class TrainingOptions(_Table):
    """Optimization of the objective."""

    epochs: Positive = 20
    """Passes over the training images."""
    batch_size: Positive = 128
    """Images per step, of all processes together."""
    optimizer: Literal["adam", "adamax", "adamw"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    """Maximum learning rate, reached after the warm-up."""
    weight_decay: PositiveFloat | None = None
    """Decoupled weight decay; `adamw` only."""
    schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` falls to zero at the last step."""
    learning_rate_warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises linearly from zero."""
    gradient_clip: PositiveFloat | None = None
    """Maximum gradient norm: longer gradients are scaled down to it."""
    gradient_skip: PositiveFloat | None = None
    """Skip steps whose gradient norm is larger. Steps whose gradient is not finite are always skipped."""
    ema_decay: Fraction | None = None
    """Decay per step of the exponential moving average of the weights. If it is set, the average is exported."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    """Precision of the nets; loss terms are always float32. `16-mixed` needs a GPU."""
    early_stopping_epochs: Positive | None = None
    """Stop after this many epochs without a lower validation loss, and export the best epoch's weights."""
    start: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*/[1-9][0-9]*$")] | None = None
    """`name/version` of a bundle whose weights the training starts from. A deeper `residual` net can start from a
    shallower one: its added blocks start as the identity."""

    @model_validator(mode="after")
    def _weight_decay_is_decoupled(self) -> "TrainingOptions":
        if (self.weight_decay is not None) != (self.optimizer == "adamw"):
            raise ValueError("weight_decay and optimizer = 'adamw' need each other")
        if self.gradient_clip and self.gradient_skip and self.gradient_skip <= self.gradient_clip:
            raise ValueError("gradient_skip must be larger than gradient_clip, or nothing is left to clip")
        return self


class Augmentation(_Table):
    """Random changes of training images, drawn anew at every use. Measurements use the images themselves."""

    flip: bool = False
    """Mirror half of the images, chosen at random, left to right."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Maximum shift along either axis, in pixels. The edge of the image is repeated."""


class Figures(_Table):
    """Options of the card's figures."""

    contrast: str | None = None
    """Name of a plain autoencoder's bundle to show beside this one."""


class Recipe(_Table):
    """One bundle version: its data, its nets and its training."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
    """Name of the bundle: lowercase letters, digits, `.`, `_` and `-`."""
    version: Positive
    """Version of the bundle."""
    description: str
    """First sentence of the card."""
    seed: Seed = 0
    """Seed of the initial weights, the order of the images, and all draws."""
    latent: Positive
    """Latent dimensions."""
    data: DataOptions = idx.IdxOptions()
    architecture: ArchitectureOptions
    objective: Annotated[Elbo | Iwae | Autoencoder, Field(discriminator="name")] = Elbo()
    likelihood: Annotated[
        Bernoulli | GreyCrossEntropy | Gaussian | DiscretizedLogistic, Field(discriminator="name")
    ] = Bernoulli()
    training: TrainingOptions = TrainingOptions()
    augmentation: Augmentation = Augmentation()
    figures: Figures = Figures()

    @model_validator(mode="after")
    def _possible(self) -> "Recipe":
        objective, training = self.objective, self.training
        if isinstance(objective, Iwae) and isinstance(self.likelihood, GreyCrossEntropy):
            raise ValueError("objective 'iwae' bounds a likelihood, and grey_cross_entropy is none")
        if isinstance(objective, Elbo) and objective.kl_warmup_epochs >= training.epochs:
            raise ValueError("objective.kl_warmup_epochs must be fewer than training.epochs")
        if training.early_stopping_epochs and not self.data.validation:
            raise ValueError("training.early_stopping_epochs watches set-aside images: give data.validation a number")
        return self

    @property
    def stochastic(self) -> bool:
        """Whether the encoder has a posterior; a plain autoencoder's has only a mean."""
        return not isinstance(self.objective, Autoencoder)

    @property
    def binarization(self) -> Literal["dynamic", "static", "none"]:
        """How pixels are binarized in training."""
        return self.likelihood.binarization if isinstance(self.likelihood, Bernoulli) else "none"

    @property
    def watched(self) -> Literal["validation", "test"]:
        """The split that is measured after every epoch."""
        return "validation" if self.data.validation else "test"


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
