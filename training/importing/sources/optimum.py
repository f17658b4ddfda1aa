"""A directory as Optimum writes a diffusion pipeline's autoencoder: two ONNX files and JSON beside them."""

import json
from pathlib import Path
from typing import Any

from training.errors import ImportRefused
from training.importing.options import RANGES
from training.importing.source import Source
from training.importing.sources.onnx_files import read_half

ENCODER, DECODER = Path("vae_encoder/model.onnx"), Path("vae_decoder/model.onnx")
CONFIGS = ("config.json", "vae/config.json", "vae_encoder/config.json", "vae_decoder/config.json")
"""Where the factors may stand, one or the other of them; what comes later goes before."""
CLIP = (-30.0, 20.0)
"""What diffusers clips the log-variance to before it is used."""


def is_optimum(directory: Path) -> bool:
    """Whether both graphs are where Optimum puts them."""
    return (directory / ENCODER).is_file() and (directory / DECODER).is_file()


def read_optimum(directory: Path) -> Source:
    """Both graphs and what the JSON beside them says.

    Raises:
        ImportRefused: a graph cannot be served, or a config.json is no JSON object.
    """
    config: dict[str, Any] = {}
    for name in CONFIGS:
        config |= read_config(directory / name) if (directory / name).is_file() else {}
    encoder = read_half(directory / ENCODER, is_encoder=True)
    return Source(
        encoder,
        read_half(directory / DECODER, is_encoder=False),
        kind="ONNX files as Optimum exports them",
        known=known_of(config),
    )


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ImportRefused: the file is something else.
    """
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ImportRefused(f"{path} cannot be read as JSON") from error
    if not isinstance(config, dict):
        raise ImportRefused(f"{path} holds no JSON object")
    return config


def known_of(config: dict[str, Any]) -> dict[str, Any]:
    """Options that a diffusers config answers: images in [-1, 1], a log-variance, latents that follow no prior.

    Raises:
        ImportRefused: a factor in it is no number.
    """
    known: dict[str, Any] = {"range": RANGES[1], "output": "image", "clip": CLIP, "prior": "none"}
    for name in ("scaling_factor", "shift_factor"):
        value = config.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ImportRefused(f"config.json has a {name} that is no number")
        if value is not None:
            known[name] = float(value)
    return known
