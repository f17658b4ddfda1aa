"""Conversion of torch modules to ONNX files, and the check that both compute the same."""

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from app.bundle.files import Bundle
from app.inference.session import Session
from app.maths.gaussian import Posterior
from training.bundling.parity import check_graph
from training.fit.likelihood import Likelihood, mean_image

OPSET = 20

# It warns of optional packages.
logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)


class ImageEncoder(nn.Module):
    """Maps images uint8 `[N, C, H, W]` to the encoder's heads, each float32 `[N, latent]`."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        heads: tuple[Tensor, ...] = self.encoder(image.float() / 255)
        return heads


class ImageDecoder(nn.Module):
    """Maps latents float32 `[N, latent]` to the mean as uint8 `[N, C, H, W]` and the likelihood's parameters."""

    def __init__(self, decoder: nn.Module, likelihood: Likelihood) -> None:
        super().__init__()
        self.decoder, self.likelihood = decoder, likelihood

    def forward(self, latent: Tensor) -> tuple[Tensor, ...]:
        parameters = self.likelihood.parameters_of(self.decoder(latent))
        # Clipped even if it is a sigmoid: ONNX does not define casts of values out of range.
        image = (mean_image(parameters) * 255).round().clamp(0, 255).to(torch.uint8)
        return image, *parameters.values()


def write_graph(path: Path, module: nn.Module, example: Tensor, outputs: list[str]) -> None:
    """Write `module` as one ONNX file with a dynamic batch size. Its input has the name of `forward`'s parameter.

    `example` has two rows: the exporter would treat a batch of one as constant.
    """
    model = to_model(module, example, outputs, {0: torch.export.Dim("batch")})
    path.write_bytes(model.SerializeToString(deterministic=True))


def to_model(
    module: nn.Module | torch.export.ExportedProgram,
    example: Tensor | None = None,
    outputs: list[str] | None = None,
    free: dict[int, Any] | None = None,
) -> Any:
    """Convert `module` to an ONNX model without the exporter's notes. `free` maps dynamic axes to torch's dimensions.

    An ExportedProgram has its own example and dimensions.
    """
    with warnings.catch_warnings(action="ignore"):  # of the exporter's own deprecations
        program = torch.onnx.export(
            module,
            () if example is None else (example,),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            output_names=outputs,
            dynamic_shapes=None if free is None else (free,),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    return model


def check_parity(written: Bundle, encoder: nn.Module, decoder: nn.Module, images: NDArray[np.uint8]) -> None:
    """Run both graphs and both modules on `images` `[N, C, H, W]`, and on latents drawn from their posteriors.

    Raises:
        ParityError: an output of a graph differs from its module's.
    """
    encoder_session = Session(written.encoder, name="encoder")
    heads = encoder_session.run({"image": images})
    posterior = Posterior(heads["mean"], heads.get("log_std"))
    latents = posterior.draw(seed=0) if written.manifest.stochastic else posterior.mean
    _check_session(encoder_session, encoder, images)
    _check_session(Session(written.decoder, name="decoder"), decoder, latents)


def _check_session(session: Session, module: nn.Module, rows: NDArray[Any]) -> None:
    with torch.no_grad():
        outputs = [output.numpy() for output in module(torch.from_numpy(rows.copy()))]
    (input_name,) = session.inputs
    expected = dict(zip(session.outputs, outputs, strict=True))
    check_graph(lambda batch: session.run({input_name: batch}), rows, expected)


def _strip(message: Any) -> None:
    """Remove the exporter's notes everywhere in a model: they hold stack traces with this machine's paths."""
    for field, value in message.ListFields():
        if field.name in ("metadata_props", "doc_string"):
            message.ClearField(field.name)
        elif field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                _strip(part)
