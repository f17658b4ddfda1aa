"""A directory as Optimum exports the autoencoder of a diffusion pipeline: two ONNX files, and JSON beside them."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import ImportRefused
from training.importing.options import RANGES, ImportOptions, PerChannel, each
from training.importing.source import Source
from training.importing.sources.onnx_files import read_graph

ENCODER, DECODER = Path("vae_encoder/model.onnx"), Path("vae_decoder/model.onnx")
CONFIGS = ("config.json", "vae/config.json", "vae_encoder/config.json", "vae_decoder/config.json")
"""Files that may hold the scaling and shift factors; later ones take precedence."""
CLIP = (-30.0, 20.0)
"""Bounds that diffusers clips the log-variance to (`DiagonalGaussianDistribution`)."""


def is_optimum(directory: Path) -> bool:
    """Whether both graphs are where Optimum writes them."""
    return (directory / ENCODER).is_file() and (directory / DECODER).is_file()


def read_optimum(directory: Path) -> Source:
    """Read both graphs and the JSON beside them.

    Raises:
        BundleError: ONNX Runtime cannot load a graph.
        ImportRefused: a graph cannot be served, or a config.json is not a JSON object.
    """
    config: dict[str, Any] = {}
    for name in CONFIGS:
        config |= read_config(directory / name) if (directory / name).is_file() else {}
    graphs = read_graph(directory / ENCODER, is_encoder=True), read_graph(directory / DECODER, is_encoder=False)
    return Source(*graphs, kind="ONNX files as Optimum exports them", known=known_options(config))


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ImportRefused: the file holds something else.
    """
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ImportRefused(f"{path} cannot be read as JSON") from error
    if not isinstance(config, dict):
        raise ImportRefused(f"{path} does not hold a JSON object")
    return config


def _numbers(config: dict[str, Any], name: str) -> PerChannel | None:
    value = config.get(name)
    if value is None:
        return None
    numbers = value if isinstance(value, list) else [value]
    if not numbers or any(isinstance(one, bool) or not isinstance(one, int | float) for one in numbers):
        raise ImportRefused(f"config.json has a {name} that is neither a number nor a list of numbers")
    if name == "latents_std" and not all(numbers):
        raise ImportRefused(f"config.json has a {name} of zero")
    return float(numbers[0]) if len(numbers) == 1 else tuple(map(float, numbers))


def known_options(config: dict[str, Any]) -> ImportOptions:
    """Options that a diffusers configuration implies: images in [-1, 1], a log-variance, latents without a prior.

    Pipelines send latents as (z - shift_factor) * scaling_factor, or as (z - latents_mean) * scaling_factor /
    latents_std, if the configuration has these.

    Raises:
        ImportRefused: one of the four is neither a number nor a list of numbers.
    """
    names = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
    scaling, shift, mean, std = (_numbers(config, name) for name in names)
    if std is not None:
        scales, stds = each(1.0 if scaling is None else scaling), each(std)
        if 1 not in (len(scales), len(stds)) and len(scales) != len(stds):
            raise ImportRefused("config.json has a scaling_factor and latents_std of different lengths")
        quotients = np.divide(scales, stds).tolist()
        scaling = quotients[0] if len(quotients) == 1 else tuple(quotients)
    shift = shift if mean is None else mean
    return ImportOptions(
        range=RANGES[1], output="image", clip=CLIP, prior="none", scaling_factor=scaling, shift_factor=shift
    )
