"""Start a training from the weights of a bundle. Initializers of its ONNX graphs have the names of torch's tensors."""

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from app.bundle.files import read_bundle
from training.errors import RecipeError
from training.fit.module import VaeModule
from training.reducing.half_precision import HALF


def start_from(directory: Path, module: VaeModule) -> None:
    """Copy the weights of the bundle in `directory` into `module`.

    Every tensor of the bundle must have the name and shape of one in the module. Tensors that the bundle lacks keep
    their initial values: the added blocks of a deeper net, which start as the identity, and a learned scale of the
    likelihood.

    Raises:
        BundleError: the bundle cannot be read.
        RecipeError: a tensor of the bundle fits none of the module.
    """
    bundle = read_bundle(directory)
    for name, half, content in (
        ("encoder", module.encoder, bundle.encoder),
        ("decoder", module.decoder, bundle.decoder),
    ):
        _load(f"{directory}: the {name}", half, _weights(content, f"{name}."))


def _weights(graph: bytes, prefix: str) -> dict[str, Tensor]:
    """A graph's initializers whose names begin with `prefix`, without it; some are stored in half precision."""
    initializers = onnx.load_model_from_string(graph).graph.initializer
    return {
        tensor.name.removeprefix(prefix).removesuffix(HALF): torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in initializers
        if tensor.name.startswith(prefix)
    }


def _load(what: str, half: nn.Module, weights: dict[str, Tensor]) -> None:
    places = half.state_dict()
    wrong = [name for name, weight in weights.items() if name not in places or places[name].shape != weight.shape]
    if wrong or not weights:
        raise RecipeError(f"{what} has weights that fit no layer of the recipe's net: {', '.join(wrong) or 'none'}")
    half.load_state_dict(weights, strict=False)
