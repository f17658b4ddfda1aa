"""A directory in diffusers' format: one of its autoencoders, config.json and safetensors."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers

from training.errors import ImportRefused
from training.importing.options import ImportOptions, PosteriorKind, TorchClass
from training.importing.prompt import Ask
from training.importing.source import Source
from training.importing.sources.optimum import known_options, read_config
from training.importing.sources.torch_class import read_module
from training.importing.sources.torch_modules import first_line

CLASSES: dict[str, PosteriorKind] = {
    "AutoencoderKL": "log-variance",
    "AsymmetricAutoencoderKL": "log-variance",
    "AutoencoderKLFlux2": "log-variance",
    "AutoencoderTiny": "none",
    "AutoencoderDC": "none",
}
"""Supported classes by name, and the kind of spread that their encoders return."""
WEIGHTS = "diffusion_pytorch_model"
"""Name of the file of weights, before its variant and suffix."""
NOTES = {
    "AutoencoderKLFlux2": (
        "pipelines pack the latents of this class in cells of 2 x 2 and normalize them; requests have the latents "
        "before that"
    )
}
"""What a bundle leaves out of a class."""


def read_diffusers(directory: Path, options: ImportOptions, ask: Ask) -> Source:
    """Read the autoencoder in a directory. It takes images of any size, unless `options.image` fixes one.

    Raises:
        ImportRefused: the class is not supported, the weights are a pickle, or diffusers fails.
    """
    config = read_config(directory / "config.json")
    name = str(config.get("_class_name"))
    posterior = CLASSES.get(name)
    loader = getattr(diffusers, name, None)
    if posterior is None:
        raise ImportRefused(f"{directory.name}/config.json names none of the classes {', '.join(CLASSES)}")
    if loader is None:
        raise ImportRefused(f"the installed diffusers has no {name}: install a newer one")
    channels = config.get("in_channels", 3)
    if channels not in (1, 3):
        raise ImportRefused("config.json has in_channels of neither 1 nor 3")
    image = ImportOptions(image=options.image or (channels, None, None))
    model = _load(directory, loader, _find_variant(directory))
    methods = TorchClass(name, encoder="encode", decoder="decode")
    source = read_module(model, methods, image, ask, kind=f"diffusers' `{name}`")
    known = replace(
        known_options(config), posterior=posterior, clip=None, image=source.known.image, layout=source.known.layout
    )
    # AutoencoderTiny's forward pass rounds the latents to bytes, as pipelines never do.
    forward = None if name == "AutoencoderTiny" else source.forward
    return replace(source, known=known, forward=forward, notes=(NOTES[name],) if name in NOTES else ())


def _find_variant(directory: Path) -> str | None:
    """Variant in the name of the weights' files, such as `fp16`; None if there are files without one.

    Raises:
        ImportRefused: there are no safetensors.
    """
    names = [path.name.removeprefix(WEIGHTS).split("-0")[0].strip(".") for path in directory.glob("*.safetensors")]
    if not names:
        raise ImportRefused(f"{directory.name} has no safetensors: weights in a pickle (.bin) are not opened")
    variants = [name.removesuffix("safetensors").strip(".") for name in names]
    return None if "" in variants else sorted(variants)[0]


def _load(directory: Path, loader: Any, variant: str | None) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # advice to install packages that speed up loading
            model = loader.from_pretrained(
                str(directory), variant=variant, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
            )
    except Exception as error:  # diffusers raises many kinds for files that do not fit each other
        raise ImportRefused(f"{directory.name} cannot be loaded by diffusers: {first_line(error)}") from error
    return model.float().eval()
