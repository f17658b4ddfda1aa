"""The check that a bundle's graphs compute what the source computes, in batches of several sizes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference.session import Session
from app.maths.likelihood import Pixels
from training.bundling.parity import BATCH_SIZES, FLOAT32, Tolerance, check_graph
from training.errors import ImportRefused
from training.importing.checks.latents import LatentInfo
from training.importing.checks.reference import Reference, to_pixels
from training.importing.source import SourceGraph
from training.importing.sources.onnx_files import run_session

FLOAT16 = Tolerance(4e-3, 2)
"""Tolerance for a half-precision source: ONNX Runtime keeps more digits where it fuses its operators with ours."""
MAX_VALUES = 2**22
"""Maximum of pixels times channels of a batch. Larger batches are not tried."""


def check_parity(
    encoder: Session, decoder: Session, reference: Reference, images: Pixels, latents: LatentInfo
) -> list[int]:
    """Run the bundle's graphs and the source on images uint8 `[N, C, H, W]`, and return the batch sizes tried.

    Sizes that would take too much time or memory are left out.

    Raises:
        ImportRefused: the source returns values that are not finite, or a graph does not run.
        ParityError: an output differs from the source's.
    """
    source, answers = reference.source, reference.answers
    max_rows = min(latents.affordable_rows(2, max(BATCH_SIZES)), MAX_VALUES // images[0].size)
    sizes = [size for size in BATCH_SIZES if size == 1 or size <= max_rows]
    rows = np.resize(images, (max(sizes), *images.shape[1:]))
    posterior = reference.encode(rows)
    drawn = posterior.mean if posterior.log_std is None else posterior.draw(seed=0)
    decoded = reference.decode(drawn)
    expected = {"mean": posterior.mean}
    if posterior.log_std is not None:
        expected["log_std"] = posterior.log_std
    for name, values in (expected | {"image": decoded}).items():
        if not np.isfinite(values).all():
            raise ImportRefused(f"the source's `{name}` is not finite: is it trained, and is --posterior right?")

    if answers.output == "probabilities" and not (
        decoded.min() >= -FLOAT32.relative and decoded.max() <= 1 + FLOAT32.relative
    ):
        raise ImportRefused(
            f"the decoder's values are from {decoded.min():g} to {decoded.max():g}, which are not probabilities: pass "
            "--output logits or image"
        )

    def run_decoder(batch: NDArray[Any]) -> dict[str, NDArray[Any]]:
        outputs = run_session(decoder, batch)
        if "logits" in outputs and answers.output == "probabilities":
            outputs["logits"] = 1 / (1 + np.exp(-outputs["logits"]))
        return outputs

    check_graph(
        lambda batch: run_session(encoder, batch), rows, expected, sizes=sizes, tolerance=_tolerance(source.encoder)
    )
    expected_images: dict[str, NDArray[Any]] = {"image": to_pixels(decoded, answers)}
    if "logits" in decoder.outputs:
        expected_images["logits"] = decoded
    check_graph(run_decoder, drawn, expected_images, sizes=sizes, tolerance=_tolerance(source.decoder))
    return sizes


def _tolerance(graph: SourceGraph) -> Tolerance:
    return FLOAT16 if graph.dtype == np.float16 else FLOAT32
