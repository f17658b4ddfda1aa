"""A directory in diffusers' format: AutoencoderKL or AutoencoderTiny, config.json and safetensors."""

import warnings
from pathlib import Path
from typing import Any

import diffusers

from training.errors import ImportRefused
from training.importing.answers import Ask
from training.importing.options import Options
from training.importing.source import Source
from training.importing.sources.optimum import known_of, read_config
from training.importing.sources.torch_class import Recipe, read_module
from training.importing.sources.torch_modules import first_line

POSTERIORS = {"AutoencoderKL": "log-variance", "AutoencoderTiny": "none"}
"""The classes that are read, and what their encoders say about the spread."""


def read_diffusers(directory: Path, options: Options, ask: Ask) -> Source:
    """The autoencoder in a directory; images of any size, unless one is passed.

    Raises:
        ImportRefused: another class, weights that are a pickle, or anything that diffusers refuses.
    """
    config = read_config(directory / "config.json")
    name = config.get("_class_name")
    if name not in POSTERIORS:
        raise ImportRefused(f"{directory.name}/config.json is of none of {', '.join(POSTERIORS)}")
    if not list(directory.glob("*.safetensors")):
        raise ImportRefused(f"{directory.name} has no safetensors: weights in a pickle (.bin) are not opened")
    known = known_of(config) | {"posterior": POSTERIORS[name], "clip": None}
    image = options.image or (_channels(config), None, None)
    model = _load(directory, name)
    source = read_module(
        model, Recipe(name, encoder="encode", decoder="decode"), Options(image=image), ask, kind=f"diffusers' `{name}`"
    )
    return Source(source.encoder, source.decoder, source.kind, known | source.known)


def _channels(config: dict[str, Any]) -> int:
    channels = config.get("in_channels", 3)
    if channels not in (1, 3):
        raise ImportRefused("config.json has in_channels of neither 1 nor 3")
    return int(channels)


def _load(directory: Path, name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that would make it faster
            loaded = getattr(diffusers, name).from_pretrained(
                str(directory), local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
            )
    except Exception as error:  # whatever diffusers raises on files that do not fit each other
        raise ImportRefused(f"{directory.name} cannot be loaded by diffusers: {first_line(error)}") from error
    return loaded.float().eval()
