"""TorchScript files and `torch.export` programs."""

import io
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch

from training.bundling.conversion import quiet, to_model
from training.errors import ImportRefused
from training.importing.answers import Ask
from training.importing.options import Options, read_image
from training.importing.source import Half, Source
from training.importing.sources.torch_archives import check_program
from training.importing.sources.torch_modules import find_examples, first_line, net_half, tensors_of

OPSET = 17
"""Of TorchScript's exporter."""


def read_programs(encoder: Path, decoder: Path) -> Source:
    """A pair of `torch.export` programs.

    Raises:
        ImportRefused: one of them is damaged, holds a pickle, or cannot be served.
    """
    halves = _program_half(encoder, is_encoder=True), _program_half(decoder, is_encoder=False)
    return Source(*halves, kind="`torch.export` programs")


def _program_half(path: Path, *, is_encoder: bool) -> Half:
    content = path.read_bytes()
    check_program(content, path.name)
    try:
        program = torch.export.load(io.BytesIO(content))
        model = to_model(program)
    except Exception as error:  # torch raises whatever it comes upon
        raise ImportRefused(f"{path.name} cannot be read, or not be exported to ONNX: {first_line(error)}") from error
    return net_half(model, path.name, program.module(), is_encoder=is_encoder)


def read_scripts(encoder: Path, decoder: Path, options: Options, ask: Ask) -> Source:
    """A pair of TorchScript files, whose inputs no file tells.

    Raises:
        ImportRefused: one of them is damaged, does not take the images, or cannot be served.
    """
    image = options.image or read_image(ask("image", "Channels, height and width of the images, such as 1x28x28", ()))
    nets = _load(encoder), _load(decoder)
    examples = find_examples(*nets, image, options.layout)
    return Source(
        _script_half(encoder.name, nets[0], examples.image, any_size=image[1] is None, is_encoder=True),
        _script_half(decoder.name, nets[1], examples.latent, any_size=image[1] is None, is_encoder=False),
        kind="TorchScript files",
        known={"image": image, "layout": examples.layout},
    )


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated
            return torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # torch raises whatever it comes upon
        raise ImportRefused(f"{path.name} cannot be read as TorchScript: {first_line(error)}") from error


def _script_half(name: str, net: Any, example: torch.Tensor, *, any_size: bool, is_encoder: bool) -> Half:
    with torch.no_grad():
        outputs = [output for output, _ in tensors_of(net(example))]
    axes = dict.fromkeys((0, 2, 3) if any_size else (0,))
    free = {tensor: {axis: f"{tensor}_{axis}" for axis in axes} for tensor in ("input", *outputs)}
    content: Any = io.BytesIO()
    try:
        with quiet():
            torch.onnx.export(
                net,
                (example,),
                content,
                dynamo=False,  # the other exporter takes no TorchScript
                opset_version=OPSET,
                input_names=["input"],
                output_names=outputs,
                dynamic_axes=free,
            )
    except Exception as error:  # the exporter raises whatever it comes upon
        raise ImportRefused(f"{name} cannot be exported to ONNX: {first_line(error)}") from error
    return net_half(onnx.load_model_from_string(content.getvalue()), name, net, is_encoder=is_encoder)
