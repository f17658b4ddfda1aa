"""A directory as Optimum exports the autoencoder of a diffusion pipeline: two ONNX files, and JSON beside them."""

import json
from pathlib import Path
from typing import Any

from training.errors import ImportRefused
from training.importing.options import RANGES, ImportOptions
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


def known_options(config: dict[str, Any]) -> ImportOptions:
    """Options that a diffusers configuration implies: images in [-1, 1], a log-variance, latents without a prior.

    Raises:
        ImportRefused: the scaling or the shift factor is not a number.
    """
    factors = {name: config.get(name) for name in ("scaling_factor", "shift_factor")}
    for name, value in factors.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ImportRefused(f"config.json has a {name} that is not a number")
    scaling, shift = (None if value is None else float(value) for value in factors.values())
    return ImportOptions(
        range=RANGES[1], output="image", clip=CLIP, prior="none", scaling_factor=scaling, shift_factor=shift
    )
