"""A recipe: one TOML file with all options for training one version of a bundle."""

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
    """Weight of the KL term. A value other than 1 trains a beta-VAE (Higgins et al. 2017), whose loss is not the
    negative ELBO."""
    free_bits: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Floor of each latent dimension's KL in the loss, in nats (Kingma et al. 2016, appendix C.8). It applies to the
    mean KL over a process's share of a batch."""
    kl_warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs over which the weight of the KL term rises linearly from 0 to beta."""


class Iwae(_Table):
    """Maximize the IWAE-k bound on log p(x) (Burda, Grosse & Salakhutdinov 2015).

    The encoder's gradient is doubly reparameterized (DReG: Tucker et al. 2018), so that its signal-to-noise ratio does
    not fall as k grows. Models trained with IWAE have a lower NLL and a looser ELBO.
    """

    name: Literal["iwae"]
    k: Annotated[int, Field(ge=2)]
    """Draws (importance samples) per image."""


class Autoencoder(_Table):
    """Minimize the reconstruction term alone: a plain autoencoder without a posterior, for comparison."""

    name: Literal["autoencoder"]


class Bernoulli(_Table):
    """Binary pixels, with a probability per pixel."""

    name: Literal["bernoulli"] = "bernoulli"
    binarization: Literal["dynamic", "static"] = "dynamic"
    """How gray pixels become binary. `dynamic` draws anew at every use of an image. `static` draws once, with the
    recipe's seed; the published binarized MNIST has other draws."""


class GreyCrossEntropy(_Table):
    """Cross entropy with gray values as targets, as in many tutorials. It is not a likelihood: its values cannot be
    compared with other models'."""

    name: Literal["grey_cross_entropy"]


class Gaussian(_Table):
    """Pixels in [0, 1], normally distributed around the decoder's mean. This is a density, so nats can be negative."""

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
    """Images per step, over all processes."""
    optimizer: Literal["adam", "adamax", "adamw"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    """Maximum learning rate, reached after the warm-up."""
    weight_decay: PositiveFloat | None = None
    """Decoupled weight decay; `adamw` only."""
    schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` decays the learning rate to zero at the last step."""
    learning_rate_warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises linearly from zero."""
    gradient_clip: PositiveFloat | None = None
    """Maximum gradient norm: larger gradients are scaled down to it."""
    gradient_skip: PositiveFloat | None = None
    """Skip steps whose gradient norm exceeds this. Steps whose gradient is not finite are always skipped."""
    ema_decay: Fraction | None = None
    """Decay per step of the exponential moving average of the weights. If it is set, the average is exported."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    """Precision of the nets; loss terms are always float32. `16-mixed` needs a GPU."""
    early_stopping_epochs: Positive | None = None
    """Stop after this many epochs without a lower validation loss. The best epoch's weights are exported."""
    start: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*/[1-9][0-9]*$")] | None = None
    """`name/version` of the bundle that provides the initial weights. A deeper `residual` net can start from a
    shallower one: its added blocks start as the identity."""

    @model_validator(mode="after")
    def _weight_decay_is_decoupled(self) -> "TrainingOptions":
        if (self.weight_decay is not None) != (self.optimizer == "adamw"):
            raise ValueError("weight_decay needs optimizer = 'adamw', and 'adamw' needs weight_decay")
        if self.gradient_clip and self.gradient_skip and self.gradient_skip <= self.gradient_clip:
            raise ValueError("gradient_skip must be larger than gradient_clip, or nothing is left to clip")
        return self


class Augmentation(_Table):
    """Random changes of training images, drawn anew at every use. Validation and evaluation use the original images."""

    flip: bool = False
    """Mirror images left to right, each with probability 1/2."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Maximum shift along each axis, in pixels. The uncovered pixels repeat the image's edge."""


class Figures(_Table):
    """Options of the card's figures."""

    contrast: str | None = None
    """Name of a plain autoencoder's bundle that the figures compare with this one."""


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
    """Number of latent dimensions."""
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
            raise ValueError("objective 'iwae' bounds a likelihood, and grey_cross_entropy is not one")
        if isinstance(objective, Elbo) and objective.kl_warmup_epochs >= training.epochs:
            raise ValueError("objective.kl_warmup_epochs must be fewer than training.epochs")
        if training.early_stopping_epochs and not self.data.validation:
            raise ValueError("training.early_stopping_epochs needs validation images: set data.validation")
        return self

    @property
    def stochastic(self) -> bool:
        """Whether the encoder returns a posterior; a plain autoencoder's returns only a mean."""
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
