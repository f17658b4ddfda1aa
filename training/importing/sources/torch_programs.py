"""Read TorchScript files and `torch.export` programs."""

import io
import warnings
from pathlib import Path
from typing import Any

import onnx
import torch

from training.bundling.conversion import to_model
from training.errors import ImportRefused
from training.importing.options import ImportOptions
from training.importing.prompt import Ask, ask_image
from training.importing.source import Source, SourceGraph
from training.importing.sources.torch_archives import check_program
from training.importing.sources.torch_modules import find_examples, first_line, flatten_output, graph_of

OPSET = 17
"""Opset of TorchScript's exporter."""


def read_programs(encoder: Path, decoder: Path) -> Source:
    """Read a pair of `torch.export` programs.

    Raises:
        ImportRefused: a program is damaged, holds a pickle, or cannot be served.
    """
    graphs = _read_program(encoder, is_encoder=True), _read_program(decoder, is_encoder=False)
    return Source(*graphs, kind="`torch.export` programs")


def _read_program(path: Path, *, is_encoder: bool) -> SourceGraph:
    content = path.read_bytes()
    check_program(content, path.name)
    try:
        program = torch.export.load(io.BytesIO(content))
        model = to_model(program)
    except Exception as error:  # torch raises many kinds
        raise ImportRefused(f"{path.name} cannot be read, or not be exported to ONNX: {first_line(error)}") from error
    return graph_of(model, path.name, program.module(), is_encoder=is_encoder)


def read_scripts(encoder: Path, decoder: Path, options: ImportOptions, ask: Ask) -> Source:
    """Read a pair of TorchScript files. The files do not state the shape of images: `options` does, or `ask` asks.

    Raises:
        ImportRefused: a file is damaged, does not take the images, or cannot be served.
    """
    image = options.image or ask_image(ask, options)
    modules = _load_script(encoder), _load_script(decoder)
    (layout, images, latents), any_size = find_examples(*modules, image, options.layout), image[1] is None
    return Source(
        _export_script(encoder.name, modules[0], images, any_size=any_size, is_encoder=True),
        _export_script(decoder.name, modules[1], latents, any_size=any_size, is_encoder=False),
        kind="TorchScript files",
        known=ImportOptions(image=image, layout=layout),
    )


def _load_script(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
            return torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # torch raises many kinds
        raise ImportRefused(f"{path.name} cannot be read as TorchScript: {first_line(error)}") from error


def _export_script(name: str, module: Any, example: torch.Tensor, *, any_size: bool, is_encoder: bool) -> SourceGraph:
    with torch.no_grad():
        outputs = [output for output, _ in flatten_output(module(example))]
    axes = (0, 2, 3) if any_size else (0,)
    content: Any = io.BytesIO()
    try:
        with warnings.catch_warnings(action="ignore"):  # the exporter's own deprecations
            torch.onnx.export(
                module,
                (example,),
                content,
                dynamo=False,  # the other exporter does not take TorchScript
                opset_version=OPSET,
                input_names=["input"],
                output_names=outputs,
                dynamic_axes={name: {axis: f"{name}_{axis}" for axis in axes} for name in ("input", *outputs)},
            )
    except Exception as error:  # the exporter raises many kinds
        raise ImportRefused(f"{name} cannot be exported to ONNX: {first_line(error)}") from error
    return graph_of(onnx.load_model_from_string(content.getvalue()), name, module, is_encoder=is_encoder)
