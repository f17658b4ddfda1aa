"""Read a model given as a torch class and a file of weights. The class is code and is run; the weights are not."""

import importlib
import inspect
import json
import re
from operator import attrgetter
from typing import Any

from torch import nn

from training.errors import ImportRefused
from training.importing.options import ImportOptions, TorchClass
from training.importing.prompt import Ask, ask_image
from training.importing.source import Source, file_name
from training.importing.sources.torch_forward import find_forward, find_prior
from training.importing.sources.torch_modules import Submodule, export_submodule, find_examples, first_line
from training.importing.sources.torch_weights import load_weights, read_weights

PARTS = {"encoder": ("encode", "encoder"), "decoder": ("decode", "decoder")}
"""Names of methods and submodules to search for, in this order."""
LIBRARIES = ("builtins", "torch.", "lightning.", "pytorch_lightning.")
"""Modules whose classes have methods that are no part of a model."""
CONDITIONS = re.compile(r"^(y|c|t|ys)$|label|cond|class|context|attr", re.IGNORECASE)
"""Names of parameters that are conditions."""


def read_class(torch_class: TorchClass, options: ImportOptions, ask: Ask) -> Source:
    """Make an instance of the class, load its weights, and export it.

    Raises:
        ImportRefused: there is no instance, the weights do not fit, or the export fails.
    """
    model = build(torch_class)
    if torch_class.weights:
        load_weights(model, [(file_name(path), read_weights(path)) for path in torch_class.weights])
    return read_module(model.eval(), torch_class, options, ask, kind=f"the class `{torch_class.path}`")


def read_module(model: nn.Module, torch_class: TorchClass, options: ImportOptions, ask: Ask, *, kind: str) -> Source:
    """Export encoder and decoder of a module in evaluation mode.

    Raises:
        ImportRefused: they are not found, do not take the images, or cannot be exported.
    """
    image = options.image or ask_image(ask, options)
    encoder = Submodule(model, _find_part(model, "encoder", torch_class.encoder))
    decoder = Submodule(model, _find_part(model, "decoder", torch_class.decoder))
    for part in (encoder, decoder):
        _check_signature(model, part.path)
    (layout, images, latents), any_size = find_examples(encoder, decoder, image, options.layout), image[1] is None
    prior = find_prior(model)
    return Source(
        export_submodule("the encoder", encoder, images, any_size=any_size, is_encoder=True),
        export_submodule("the decoder", decoder, latents, any_size=any_size, is_encoder=False),
        kind=kind,
        known=ImportOptions(image=image, layout=layout, prior=None if prior is None else "none"),
        forward=find_forward(model, images),
        notes=() if prior is None else (f"the model has a learned prior (`{prior}`), which a bundle cannot hold",),
    )


def _check_signature(model: nn.Module, path: str) -> None:
    """Refuse a method or submodule that takes more than one tensor.

    Raises:
        ImportRefused: it does; the message says what kind of model does.
    """
    part = attrgetter(path)(model)
    try:
        parameters = inspect.signature(part.forward if isinstance(part, nn.Module) else part).parameters.values()
    except ValueError:  # a builtin, or a function of TorchScript
        return
    positional = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    taken = [one.name for one in parameters if one.kind in positional and one.default is inspect.Parameter.empty]
    if len(taken) > 1:
        kind = "conditional" if any(map(CONDITIONS.search, taken)) else "conditional or hierarchical"
        raise ImportRefused(
            f"`{path}` takes {', '.join(f'`{name}`' for name in taken)}, as in a {kind} model, which a bundle cannot "
            "represent: it has one latent and no condition"
        )


def _find_part(model: nn.Module, role: str, path: str | None) -> str:
    """Path of the method or submodule that encodes or decodes: `path`, or if it is None, one of the usual names.

    Raises:
        ImportRefused: there is none; the message has the names that exist.
    """
    found = next((name for name in ([path] if path else PARTS[role]) if _is_callable(model, name)), None)
    if found is None:
        kind, names = type(model), [name for name, _ in model.named_children()]
        own = [part for part in kind.__mro__ if not part.__module__.startswith(LIBRARIES)]
        names += sorted(
            {name for part in own for name in vars(part) if name[0] != "_" and callable(getattr(part, name))}
        )
        wrong = f"no `{path}`" if path else f"neither {' nor '.join(PARTS[role])}"
        raise ImportRefused(
            f"{kind.__name__} has {wrong}: name its part with --{role}. It has {', '.join(names) or 'no parts'}"
        )
    return found


def _is_callable(model: nn.Module, path: str) -> bool:
    try:
        return callable(attrgetter(path)(model))
    except Exception:  # foreign properties raise any kind
        return False


def build(torch_class: TorchClass) -> nn.Module:
    """Import the class and make an instance.

    Raises:
        ImportRefused: there is no such class, or it cannot be made with these arguments.
    """
    module, _, name = torch_class.path.partition(":")
    if not module or not name:
        raise ImportRefused("--class is written as package.module:Class")
    arguments = dict(map(_argument, torch_class.arguments))
    try:
        model = attrgetter(name)(importlib.import_module(module))(**arguments)
    except Exception as error:  # foreign code raises any kind
        raise ImportRefused(f"{torch_class.path} cannot be made: {first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ImportRefused(f"{torch_class.path} does not make a torch module")
    return model


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ImportRefused("--arg is written as name=value")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
