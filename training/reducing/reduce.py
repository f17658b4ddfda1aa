"""Write a new version of a bundle with smaller weights, if its results stay within bounds.

    python -m training reduce models/mnist/2 --precision fp16

The graphs of both versions are compared before anything is written. The new version appears atomically.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from app.bundle import files as bundle
from app.bundle.files import Bundle
from app.bundle.manifest import File, Manifest, Reduced
from app.maths.gaussian import Floats, sample_prior
from training.atomic import whole
from training.card import add_reduced_section, write_card
from training.errors import ReductionRefused
from training.offline import OfflineGraphs
from training.reducing.half_precision import compute_in_half, store_in_half
from training.reducing.int8 import quantize_products
from training.reducing.options import PROVIDERS, ReduceOptions
from training.reducing.quality_gate import measure_reduction, reason_to_refuse
from training.reducing.samples import ReductionImages, read_images
from training.versions import reserve_version


def reduce(directory: Path, options: ReduceOptions, *, data_dir: Path) -> tuple[Path, Reduced]:
    """Write the reduction of the bundle in `directory` beside it, and return its directory and its measurements.

    Raises:
        BundleError: the bundle cannot be read.
        CommandError: the version exists, or the images to measure it on cannot be read.
        ReductionRefused: its weights cannot be reduced, the change exceeds the bound, or int8 is not faster.
    """
    read = bundle.read_bundle(directory)
    existing = read.manifest.reduced.get("any") or read.manifest.reduced.get(PROVIDERS[options.precision])
    if existing is not None:
        raise ReductionRefused(
            f"{directory} has {existing.precision} weights already, made of version {existing.source}"
        )
    with reserve_version(directory.parent, options.version, replace=options.replace) as version:
        images = read_images(
            directory, read.manifest, data_dir=data_dir, images=options.images, count=options.count, seed=options.seed
        )
        models = _reduce_graphs(directory, read, options, images)
        reduced = measure_reduction(read, models, options, images)
        reason = reason_to_refuse(reduced, options.faster)
        if reason is not None:
            raise ReductionRefused(f"{directory}: {reason}: nothing is written")
        target = directory.parent / str(version)
        with whole(target, copy=directory) as partial:
            _write(partial, version, read.manifest, models, reduced)
            _run_once(partial, reduced, images)
    return target, reduced


def _reduce_graphs(
    directory: Path, read: Bundle, options: ReduceOptions, images: ReductionImages
) -> dict[str, ModelProto]:
    """The reduced graphs by their names, `encoder` and `decoder`."""
    graphs = read.manifest.graphs
    files = {"encoder": (graphs.encoder, read.encoder), "decoder": (graphs.decoder, read.decoder)}
    models: dict[str, ModelProto] = {}
    for graph, (file, content) in files.items():
        if options.only in (None, graph):
            model, name = onnx.load_model_from_string(content), f"{directory / file.file}"
            _check_finite(model, name)
            if options.precision == "fp16-stored":
                store_in_half(model, name)
            elif options.precision == "fp16":
                model = compute_in_half(model, name)
            else:
                rows = images.calibration if graph == "encoder" else _latents(read, images, options.seed)
                model = quantize_products(model, name, rows)
            models[graph] = model
    return models


def _check_finite(model: ModelProto, name: str) -> None:
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ReductionRefused(f"{name}: `{tensor.name}` has weights that are not finite")


def _latents(read: Bundle, images: ReductionImages, seed: int) -> Floats:
    """Typical latents `[N, *latent]`: draws from posteriors, and every second one from the prior if there is one."""
    posterior = OfflineGraphs(read).encode(images.calibration)
    latents = posterior.mean if posterior.log_std is None else posterior.draw(seed)
    if read.manifest.latent.prior is not None:
        latents[1::2] = sample_prior(seed, len(latents), latents.shape[1:])[1::2]
    return latents


def _write(directory: Path, version: int, manifest: Manifest, models: dict[str, ModelProto], reduced: Reduced) -> None:
    """Write the reduced graphs into a copy of the original bundle, and describe them in its manifest and card."""
    provider, graphs = PROVIDERS[reduced.precision], manifest.graphs
    files: dict[str, File] = {"encoder": reduced.encoder, "decoder": reduced.decoder}
    for name, model in models.items():
        (directory / files[name].file).write_bytes(model.SerializeToString(deterministic=True))
    update: dict[str, Any] = {
        "version": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "reduced": manifest.reduced | {provider: reduced},
    }
    if provider == "any":  # the reduced graphs replace the original ones
        encoder = graphs.encoder.model_copy(update=dict(reduced.encoder))
        decoder = graphs.decoder.model_copy(update=dict(reduced.decoder))
        update["graphs"] = graphs.model_copy(update={"encoder": encoder, "decoder": decoder})
        if manifest.metrics:
            update["metrics"] = manifest.metrics | {"version": manifest.version}
    bundle.write_manifest(directory, manifest.model_copy(update=update))
    if (directory / "recipe.toml").exists():
        write_card(directory)
    else:  # the card of an imported bundle cannot be rendered again
        add_reduced_section(directory / "README.md", bundle.read_manifest(directory))


def _run_once(directory: Path, reduced: Reduced, images: ReductionImages) -> None:
    """Read the written bundle, and run its reduced graphs on one image."""
    written = bundle.read_bundle(directory)
    encoder, decoder = written.graphs_of(PROVIDERS[reduced.precision])
    graphs = OfflineGraphs(replace(written, encoder=encoder, decoder=decoder))
    graphs.decode(graphs.encode(images.held_out[:1]).mean)
