"""A class of somebody's own and a file of weights. The class's code is run; the weights' file is only read."""

import importlib
import json
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from training.errors import ImportRefused
from training.importing.answers import Ask
from training.importing.options import Options, read_image
from training.importing.source import Source
from training.importing.sources.torch_modules import Net, as_net_half, find_examples, first_line

PARTS = {"encoder": ("encode", "encoder"), "decoder": ("decode", "decoder")}
"""Methods and parts that are looked for, in this order."""
PREFERRED = ("state_dict", "model_state_dict", "model", "model_state")
"""Where checkpoints keep the weights."""


@dataclass(frozen=True)
class Recipe:
    """How the model is made."""

    path: str
    """`package.module:Class`, or any callable there that returns a module."""
    arguments: Sequence[str] = ()
    """`name=value` each, the value as JSON or as it stands."""
    weights: Path | None = None
    encoder: str | None = None
    decoder: str | None = None


def read_class(recipe: Recipe, options: Options, ask: Ask) -> Source:
    """The model that the class makes, with the weights in it.

    Raises:
        ImportRefused: it cannot be made, the weights do not fit, or it cannot be exported.
    """
    model = build(recipe)
    if recipe.weights is not None:
        fill(model, read_weights(recipe.weights), recipe.weights.name)
    return read_module(model.eval(), recipe, options, ask, kind=f"the class `{recipe.path}`")


def read_module(model: nn.Module, recipe: Recipe, options: Options, ask: Ask, *, kind: str) -> Source:
    """A module in its evaluation mode as a source."""
    image = options.image or read_image(ask("image", "Channels, height and width of the images, such as 1x28x28", ()))
    encoder = Net(model, recipe.encoder or _part(model, "encoder"))
    decoder = Net(model, recipe.decoder or _part(model, "decoder"))
    examples, any_size = find_examples(encoder, decoder, image, options.layout), image[1] is None
    return Source(
        as_net_half("the encoder", encoder, examples.image, any_size=any_size, is_encoder=True),
        as_net_half("the decoder", decoder, examples.latent, any_size=any_size, is_encoder=False),
        kind=kind,
        known={"image": image, "layout": examples.layout},
    )


def _part(model: nn.Module, half: str) -> str:
    """The method or part that is the half."""
    found = next((name for name in PARTS[half] if callable(getattr(model, name, None))), None)
    if found is None:
        raise ImportRefused(
            f"{type(model).__name__} has neither {' nor '.join(PARTS[half])}: name its part with --{half}"
        )
    return found


def build(recipe: Recipe) -> nn.Module:
    """Import the class and make an object of it.

    Raises:
        ImportRefused: there is none, or it cannot be made with these arguments.
    """
    module, _, name = recipe.path.partition(":")
    if not module or not name:
        raise ImportRefused("--class is written as package.module:Class")
    try:
        part: Any = importlib.import_module(module)
        for step in name.split("."):
            part = getattr(part, step)
        model = part(**dict(_argument(text) for text in recipe.arguments))
    except ImportRefused:
        raise
    except Exception as error:  # whatever the foreign code raises
        raise ImportRefused(f"{recipe.path} cannot be made: {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ImportRefused(f"{recipe.path} makes no torch module")
    return model


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ImportRefused("--arg is written as name=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, or in a torch file that holds nothing else.

    Raises:
        ImportRefused: it is absent, another file, or a pickle with more than tensors in it.
    """
    if not path.is_file():
        raise ImportRefused(f"{path} is absent, or is no file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles of unusual protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ImportRefused(
            f"{path.name} is a pickle that holds more than weights, which is not opened: save its state_dict() "
            "alone, or as safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ImportRefused(f"{path.name} is no file of weights") from error
    return _state(content, path.name)


def _state(content: Any, name: str) -> dict[str, Tensor]:
    """The weights themselves, which a checkpoint has beside other things."""
    if _is_state(content):
        state: dict[str, Tensor] = content
        return state
    inner = {key: part for key, part in content.items() if _is_state(part)} if isinstance(content, dict) else {}
    key = next((key for key in (*PREFERRED, *inner) if key in inner), None)
    if key is None:
        raise ImportRefused(f"{name} holds no weights by name")
    return dict(inner[key])


def _is_state(content: Any) -> bool:
    return isinstance(content, dict) and bool(content) and all(isinstance(part, Tensor) for part in content.values())


def fill(model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Put weights into a model; a prefix that all their names share is cut off where the model lacks it.

    Raises:
        ImportRefused: they do not fit; the message names one that does not.
    """
    places = model.state_dict()
    prefixes = {key.partition(".")[0] for key in state}
    if len(prefixes) == 1 and not set(state) & set(places):
        prefix = f"{prefixes.pop()}."
        state = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    wrong = sorted(set(places) ^ set(state)) or [
        key for key, tensor in state.items() if tensor.shape != places[key].shape
    ]
    if wrong:
        count = f"{len(wrong)} in all do not fit"
        raise ImportRefused(f"{name} does not have `{wrong[0]}` as the class has it; {count}")
    model.load_state_dict(state)
