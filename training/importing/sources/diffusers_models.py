"""A directory in diffusers' format: AutoencoderKL or AutoencoderTiny, config.json and safetensors."""

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

CLASSES: dict[str, tuple[Any, PosteriorKind]] = {
    "AutoencoderKL": (diffusers.AutoencoderKL, "log-variance"),
    "AutoencoderTiny": (diffusers.AutoencoderTiny, "none"),
}
"""Supported classes by name, and the kind of spread that their encoders return."""


def read_diffusers(directory: Path, options: ImportOptions, ask: Ask) -> Source:
    """Read the autoencoder in a directory. It takes images of any size, unless `options.image` fixes one.

    Raises:
        ImportRefused: the class is not supported, the weights are a pickle, or diffusers fails.
    """
    config = read_config(directory / "config.json")
    name = config.get("_class_name")
    if name not in CLASSES:
        raise ImportRefused(f"{directory.name}/config.json names none of the classes {', '.join(CLASSES)}")
    if not list(directory.glob("*.safetensors")):
        raise ImportRefused(f"{directory.name} has no safetensors: weights in a pickle (.bin) are not opened")
    loader, posterior = CLASSES[name]
    channels = config.get("in_channels", 3)
    if channels not in (1, 3):
        raise ImportRefused("config.json has in_channels of neither 1 nor 3")
    image = ImportOptions(image=options.image or (channels, None, None))
    model = _load(directory, loader)
    methods = TorchClass(name, encoder="encode", decoder="decode")
    source = read_module(model, methods, image, ask, kind=f"diffusers' `{name}`")
    known = replace(
        known_options(config), posterior=posterior, clip=None, image=source.known.image, layout=source.known.layout
    )
    if name == "AutoencoderTiny":  # its forward pass rounds the latents to bytes, as pipelines never do
        return replace(source, known=known, forward=None)
    return replace(source, known=known)


def _load(directory: Path, loader: Any) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # advice to install packages that speed up loading
            model = loader.from_pretrained(
                str(directory), local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
            )
    except Exception as error:  # diffusers raises many kinds for files that do not fit each other
        raise ImportRefused(f"{directory.name} cannot be loaded by diffusers: {first_line(error)}") from error
    return model.float().eval()
