"""A settled, proven import as a bundle: it appears under its name whole, or not at all."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx

from app.bundle import manifest as bundle
from app.bundle.manifest import Graph, Manifest, Tensor
from app.errors import BundleError
from app.inference.session import Session
from training.atomic import whole
from training.importing.card import write_card
from training.importing.checks.parity import BATCHES, check_parity
from training.importing.checks.probe import Latents
from training.importing.checks.reference import Reference
from training.importing.checks.roundtrip import RoundTrip
from training.importing.onnx_edits.wrap import find_logits, wrap_decoder, wrap_encoder
from training.importing.options import Answers, Binarization
from training.importing.refusal import ImportRefused
from training.importing.report import refusal
from training.offline import OfflineGraphs as Graphs

Wrapped = tuple[onnx.ModelProto, dict[str, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Label:
    """What a bundle is called, and what people say about it."""

    name: str
    version: int
    description: str
    license: str
    dataset: str
    binarization: Binarization
    origin: str | None = None
    """Where the weights come from, in words."""


def write_bundle(
    target: Path, label: Label, reference: Reference, latents: Latents, trip: RoundTrip, *, force: bool
) -> None:
    """Write the bundle to `target`, replacing what is there.

    Raises:
        ImportRefused: the graphs do not compute what the source does, or another answer is much better.
    """
    source, answers = reference.source, reference.answers
    with whole(target) as directory:
        logits = find_logits(source.decoder, answers)
        encoder = _write(directory / "encoder.onnx", wrap_encoder(source.encoder, answers, latents.shape))
        decoder = _write(directory / "decoder.onnx", wrap_decoder(source.decoder, answers, latents.shape, logits))
        manifest = _describe(label, answers, latents, {"encoder": encoder, "decoder": decoder}, _metrics(trip, latents))
        bundle.write_manifest(directory, manifest)
        read = bundle.read_bundle(directory)
        sizes = check_parity(
            _load(read.encoder, "encoder.onnx"),
            _load(read.decoder, "decoder.onnx"),
            reference,
            trip.samples.images,
            latents.rows(2, max(BATCHES)),
        )
        reason = refusal(trip)
        if reason is not None and not force:
            raise ImportRefused(reason)
        if latents.stride is None and trip.samples.are_real:
            _add_arrays(directory, read, trip)
        write_card(directory, source.kind, answers, trip, sizes, label.origin)
        bundle.read_bundle(directory)


def _write(path: Path, wrapped: Wrapped) -> Graph:
    model, inputs, outputs = wrapped
    path.write_bytes(model.SerializeToString(deterministic=True))
    return Graph.model_validate(bundle.describe(path) | {"inputs": inputs, "outputs": outputs})


def _load(graph: bytes, name: str) -> Session:
    try:
        return Session(graph, name=name)
    except BundleError as error:
        raise ImportRefused(str(error)) from error


def _add_arrays(directory: Path, read: bundle.Bundle, trip: RoundTrip) -> None:
    """The arrays that the server makes its map of the latent space of: of vectors, and real images."""
    from training.bundling.posteriors import write_posteriors
    from training.data import Split

    arrays = write_posteriors(directory, Graphs(read), Split(trip.samples.images, None))
    bundle.write_manifest(directory, read.manifest.model_copy(update={"arrays": arrays}))


def _metrics(trip: RoundTrip, latents: Latents) -> dict[str, Any]:
    """What was measured on real images; nothing on made ones."""
    if not trip.samples.are_real:
        return {}
    metrics: dict[str, Any] = {
        "split": trip.samples.title,
        "images": len(trip.samples.images),
        "mean_squared_error": round(trip.error, 6),
    }
    kl = trip.kl
    if kl is not None:
        metrics["kl"] = round(float(kl.sum()), 4)
        if latents.stride is None:
            metrics["kl_per_dimension"] = [round(float(value), 4) for value in kl]
    return metrics


def _describe(
    label: Label, answers: Answers, latents: Latents, graphs: dict[str, Graph], metrics: dict[str, Any]
) -> Manifest:
    has_logits = "logits" in graphs["decoder"].outputs
    return Manifest.model_validate(
        {
            "name": label.name,
            "version": label.version,
            "description": label.description,
            "license": label.license,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "image": {
                "channels": answers.channels,
                "height": answers.height,
                "width": answers.width,
                "mode": {1: "L", 3: "RGB"}[answers.channels],
            },
            "latent": {
                "shape": latents.shape,
                "stride": latents.stride,
                "prior": "standard_normal" if answers.prior == "standard-normal" else None,
                "scaling_factor": answers.scaling_factor,
                "shift_factor": answers.shift_factor,
            },
            # Without parameters nothing is scored: it is what a squared error is the likelihood of.
            "likelihood": "bernoulli" if has_logits else "gaussian",
            "graphs": graphs,
            "training": {
                "dataset": label.dataset,
                "binarization": label.binarization,
                "recipe": "none",
                "epochs": 0,
                "seed": 0,
            },
            "metrics": metrics,
        }
    )
