"""Write the bundle of a foreign model atomically."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.bundle import files as bundle
from app.bundle.manifest import GraphFile, Manifest
from app.inference.session import Session
from training.atomic import whole
from training.errors import ImportRefused
from training.importing.card import write_card
from training.importing.checks.latents import LatentInfo
from training.importing.checks.memory import describe_tiles
from training.importing.checks.parity import check_parity
from training.importing.checks.reference import Reference
from training.importing.checks.round_trip import RoundTrip
from training.importing.checks.tiles import check_tiles
from training.importing.onnx_edits.wrapper import WrappedGraph, wrap_decoder, wrap_encoder
from training.importing.options import Answers, BundleInfo
from training.offline import OfflineGraphs


def write_bundle(info: BundleInfo, reference: Reference, latents: LatentInfo, trip: RoundTrip, *, force: bool) -> None:
    """Write the bundle to `info.directory`, replacing an existing one.

    Raises:
        BundleError: ONNX Runtime cannot load a graph.
        ImportRefused: the source's forward pass gives other images, or other answers give much better reconstructions;
            and `force` is false.
        ParityError: the bundle's graphs do not compute what the source computes.
    """
    source, answers = reference.source, reference.answers
    for factor in (answers.scaling_factor, answers.shift_factor):
        if isinstance(factor, tuple) and len(factor) != latents.shape[0]:
            raise ImportRefused(f"the latents have {latents.shape[0]} channels, and a factor is one of {len(factor)}")
    if not force:
        _check_round_trip(trip)
    with whole(info.directory) as directory:
        graphs = {
            "encoder": _write_graph(directory / "encoder.onnx", wrap_encoder(source.encoder, answers, latents.shape)),
            "decoder": _write_graph(directory / "decoder.onnx", wrap_decoder(source.decoder, answers, latents.shape)),
        }
        bundle.write_manifest(directory, _describe(info, answers, latents, graphs, _metrics(trip, latents)))
        read = bundle.read_bundle(directory)
        sessions = Session(read.encoder, name="encoder.onnx"), Session(read.decoder, name="decoder.onnx")
        sizes = check_parity(*sessions, reference, trip.samples.images, latents)
        if latents.stride is None and trip.samples.are_real:
            _add_arrays(directory, read, trip)
        tiles = check_tiles(*sessions, latents, trip.samples.images)
        if tiles is not None:
            described = describe_tiles(read, tiles, latents.stride or 1)
            latent = read.manifest.latent.model_copy(update={"margin": tiles.margin, "tiles": described})
            bundle.write_manifest(directory, read.manifest.model_copy(update={"latent": latent}))
        write_card(directory, source, answers, trip, sizes, tiles)
        bundle.read_bundle(directory)


def _check_round_trip(trip: RoundTrip) -> None:
    forward, comparison, better = trip.forward, trip.comparison, trip.comparison.better_options
    if forward is not None and forward.differs:
        family = "" if forward.family is None else f", as in {forward.family}, which a bundle cannot represent"
        raise ImportRefused(
            f"the model's own forward pass differs from decoder(encoder(x)) by up to {forward.levels:.1f} gray levels: "
            f"it computes more than these two{family}. If a method of the model includes that, name it with "
            "--encoder or --decoder; --force writes the bundle without it"
        )
    if better is not None and trip.samples.are_real:
        raise ImportRefused(
            f"the reconstructions of {comparison.images} images have an error of {comparison.error:.5f}, and with "
            f"{better} it would be {comparison.alternatives[better]:.5f}: pass that, or --force to write the bundle "
            "anyway"
        )


def _write_graph(path: Path, wrapped: WrappedGraph) -> GraphFile:
    model, inputs, outputs = wrapped
    path.write_bytes(model.SerializeToString(deterministic=True))
    return GraphFile.model_validate(bundle.describe(path) | {"inputs": inputs, "outputs": outputs})


def _add_arrays(directory: Path, read: bundle.Bundle, trip: RoundTrip) -> None:
    """Add the arrays from which the server draws its map of the latent space. Only vector latents have them."""
    from training.bundling.posteriors import write_posteriors
    from training.data import Split

    arrays = write_posteriors(directory, OfflineGraphs(read), Split(trip.samples.images, None))
    bundle.write_manifest(directory, read.manifest.model_copy(update={"arrays": arrays}))


def _metrics(trip: RoundTrip, latents: LatentInfo) -> dict[str, Any]:
    """Metrics of the manifest: empty for synthetic images."""
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
    info: BundleInfo, answers: Answers, latents: LatentInfo, graphs: dict[str, GraphFile], metrics: dict[str, Any]
) -> Manifest:
    return Manifest.model_validate(
        {
            "name": info.name,
            "version": info.version,
            "description": info.description,
            "license": info.license,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "image": {
                "channels": answers.channels,
                "height": answers.height,
                "width": answers.width,
                "mode": {1: "L", 3: "RGB"}[answers.channels],
                "resampling": answers.resampling,
            },
            "latent": {
                "shape": latents.shape,
                "stride": latents.stride,
                "prior": "standard_normal" if answers.prior == "standard-normal" else None,
                "scaling_factor": answers.scaling_factor,
                "shift_factor": answers.shift_factor,
            },
            # Without logits there are no scores; a squared error corresponds to a Gaussian likelihood.
            "likelihood": "bernoulli" if "logits" in graphs["decoder"].outputs else "gaussian",
            "graphs": graphs,
            "training": {
                "dataset": info.dataset,
                "binarization": info.binarization,
                "recipe": "none",
                "epochs": 0,
                "seed": 0,
            },
            "metrics": metrics,
        }
    )
