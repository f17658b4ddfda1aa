"""A recipe: one TOML file that says everything needed to train one bundle version again."""

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
    """Minimise the negative ELBO, reconstruction + beta * KL (Kingma & Welling 2013)."""

    name: Literal["elbo"] = "elbo"
    beta: PositiveFloat = 1.0
    """Weight of the KL term; what is not 1 trains a beta-VAE (Higgins et al. 2017) and no longer bounds log p(x)."""
    free_bits: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Nats of KL that a latent dimension has for nothing, on the mean of a process's share of a batch (Kingma et al.
    2016, appendix C.8)."""
    kl_warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs over which the weight of the KL term rises linearly from 0 to beta."""


class Iwae(_Table):
    """Maximise the IWAE-k bound on log p(x) (Burda, Grosse & Salakhutdinov 2015).

    The encoder's gradient is doubly reparameterised (DReG: Tucker et al. 2018), so that its signal does not fade as k
    grows. A model trained so has a better NLL and a looser ELBO.
    """

    name: Literal["iwae"]
    k: Annotated[int, Field(ge=2)]
    """Draws an image."""


class Autoencoder(_Table):
    """Minimise the reconstruction alone: a plain autoencoder, whose encoder has no posterior. For contrast."""

    name: Literal["autoencoder"]


class Bernoulli(_Table):
    """Binary pixels, each with its own probability."""

    name: Literal["bernoulli"] = "bernoulli"
    binarization: Literal["dynamic", "static"] = "dynamic"
    """How grey pixels become binary: `dynamic` draws anew whenever an image is seen, `static` draws once for all, by
    the recipe's seed, as the usual binarized MNIST was made (that one's own draws are not these)."""


class GreyCrossEntropy(_Table):
    """The cross entropy with the grey values themselves, as many tutorials train. No likelihood: its values compare
    with nothing."""

    name: Literal["grey_cross_entropy"]


class Gaussian(_Table):
    """Pixels in [0, 1] with a normal distribution about the decoder's mean; a density, so its nats can be negative."""

    name: Literal["gaussian"]
    scale: PositiveFloat | Literal["learned"]
    """Standard deviation of a pixel; `learned` is one for all pixels, trained along (Rybkin et al. 2021)."""


class DiscretizedLogistic(_Table):
    """8-bit pixels: a logistic distribution whose mean and scale the decoder gives for each, integrated over the 256
    levels (Kingma et al. 2016, appendix C.1; Salimans et al. 2017). Its nats convert to bits per dimension."""

    name: Literal["discretized_logistic"]


class Training(_Table):
    """How the objective is minimised."""

    epochs: Positive = 20
    """Passes over the training images."""
    batch_size: Positive = 128
    """Images a step, over all processes together."""
    optimizer: Literal["adam", "adamax", "adamw"] = "adam"
    learning_rate: PositiveFloat = 1e-3
    """The highest, after the warm-up."""
    weight_decay: PositiveFloat | None = None
    """Decoupled weight decay; `adamw` only."""
    schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` falls to zero at the last step."""
    learning_rate_warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which the learning rate rises linearly from zero."""
    gradient_clip: PositiveFloat | None = None
    """Largest gradient norm; a longer gradient is shortened to it."""
    gradient_skip: PositiveFloat | None = None
    """A step whose gradient norm is larger changes nothing. One that is not finite never does."""
    ema_decay: Fraction | None = None
    """Decay a step of the exponential moving average of the weights; where set, the average is what is exported."""
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    """Of the nets; loss terms are float32 always. `16-mixed` needs a GPU."""
    early_stopping_epochs: Positive | None = None
    """Stop after so many epochs in which the validation loss did not fall, and export the best epoch's weights."""
    start: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*/[1-9][0-9]*$")] | None = None
    """`name/version` of a bundle whose weights the training starts from. A deeper `residual` net takes up a shallower
    one's: its added blocks start as the identity."""

    @model_validator(mode="after")
    def _weight_decay_is_decoupled(self) -> "Training":
        if (self.weight_decay is not None) != (self.optimizer == "adamw"):
            raise ValueError("weight_decay and optimizer = 'adamw' need one another")
        if self.gradient_clip and self.gradient_skip and self.gradient_skip <= self.gradient_clip:
            raise ValueError("gradient_skip must be larger than gradient_clip, or nothing is left to clip")
        return self


class Augmentation(_Table):
    """How training images are changed whenever they are seen; measured are always the images themselves."""

    flip: bool = False
    """Every other image, by a draw, is mirrored: left is right."""
    shift: Annotated[int, Field(ge=0)] = 0
    """Most pixels that an image is moved along either axis; what comes in is its edge, repeated."""


class Figures(_Table):
    """What the card shows."""

    contrast: str | None = None
    """Name of a plain autoencoder's bundle to draw beside this one."""


class Recipe(_Table):
    """One bundle version: what it learns from, what it is made of, how it is trained."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
    """Of the bundle: small letters, digits, `.`, `_` and `-`."""
    version: Positive
    description: str
    """The first words of the card."""
    seed: Seed = 0
    """Of the weights, the order of the images, and all draws."""
    latent: Positive
    """Latent dimensions."""
    data: DataOptions = idx.IdxOptions()
    architecture: ArchitectureOptions
    objective: Annotated[Elbo | Iwae | Autoencoder, Field(discriminator="name")] = Elbo()
    likelihood: Annotated[
        Bernoulli | GreyCrossEntropy | Gaussian | DiscretizedLogistic, Field(discriminator="name")
    ] = Bernoulli()
    training: Training = Training()
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
        """How pixels become binary in training."""
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
