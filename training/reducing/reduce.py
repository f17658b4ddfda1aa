"""From a bundle to one with smaller weights, if those do no harm.

    python -m training reduce models/mnist/2 --precision fp16

The graphs of both are run side by side before anything is written. A bundle appears under its name whole, or not at
all.
"""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from app.bundle import manifest as bundle
from app.bundle.manifest import Bundle, File, Manifest, Reduced
from app.maths.gaussian import Floats, sample_prior
from training.atomic import whole
from training.card import add_reduced_section, write_card
from training.offline import OfflineGraphs as Graphs
from training.reducing.gate import measure, refusal, serialized
from training.reducing.halves import compute_in_half, store_in_half
from training.reducing.integers import compute_in_integers
from training.reducing.options import PROVIDERS, Options
from training.reducing.refusal import ReductionRefused
from training.reducing.samples import Samples, read_samples


def reduce(directory: Path, options: Options, *, data_dir: Path) -> tuple[Path, Reduced]:
    """Write a bundle like that in `directory` with smaller weights beside it; where it is, and what was measured.

    Raises:
        BundleError: the bundle cannot be read.
        DataError, ImportRefused: images to measure it on cannot be had.
        ReductionRefused: its weights cannot be reduced, or to do so does harm, or int8 is not faster.
    """
    read = bundle.read_bundle(directory)
    target = _target(directory, read.manifest, options)
    samples = read_samples(
        directory, read.manifest, data_dir=data_dir, images=options.images, count=options.count, seed=options.seed
    )
    models = _models(directory, read, options, samples)
    reduced = measure(read, models, options, samples)
    reason = refusal(reduced, options.faster)
    if reason is not None:
        raise ReductionRefused(f"{directory}: {reason}: nothing is written")
    _write(directory, target, read.manifest, models, reduced, samples)
    return target, reduced


def _target(directory: Path, manifest: Manifest, options: Options) -> Path:
    """Where the bundle is to lie."""
    made = manifest.reduced.get("any") or manifest.reduced.get(PROVIDERS[options.precision])
    if made is not None:
        raise ReductionRefused(f"{directory} has {made.precision} weights already, made of version {made.source}")
    there = [int(path.name) for path in directory.parent.glob("*") if path.name.isdecimal()]
    target = directory.parent / str(options.version or max(there, default=0) + 1)
    if target.exists() and not options.replace:
        raise ReductionRefused(f"{target} is there: pass another --version, or --replace")
    return target


def _models(directory: Path, read: Bundle, options: Options, samples: Samples) -> dict[str, ModelProto]:
    """The graphs that are reduced."""
    files: dict[str, tuple[File, bytes]] = {
        "encoder": (read.manifest.graphs.encoder, read.encoder),
        "decoder": (read.manifest.graphs.decoder, read.decoder),
    }
    models: dict[str, ModelProto] = {}
    for half, (file, content) in files.items():
        if options.only in (None, half):
            model, name = onnx.load_model_from_string(content), f"{directory / file.file}"
            _check_finite(model, name)
            if options.precision == "fp16-stored":
                store_in_half(model, name)
            elif options.precision == "fp16":
                model = compute_in_half(model, name)
            else:
                rows = samples.calibrating if half == "encoder" else _latents(read, samples, options.seed)
                model = compute_in_integers(model, name, rows)
            models[half] = model
    return models


def _check_finite(model: ModelProto, name: str) -> None:
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ReductionRefused(f"{name}: `{tensor.name}` has weights that are not finite")


def _latents(read: Bundle, samples: Samples, seed: int) -> Floats:
    """Latents like those that a decoder gets: draws from posteriors and, where there is one, from the prior."""
    posterior = Graphs(read).encode(samples.calibrating)
    latents = posterior.mean if posterior.log_std is None else posterior.draw(seed)
    if read.manifest.latent.prior is not None:
        latents[1::2] = sample_prior(seed, len(latents), latents.shape[1:])[1::2]
    return latents


def _write(
    directory: Path,
    target: Path,
    manifest: Manifest,
    models: dict[str, ModelProto],
    reduced: Reduced,
    samples: Samples,
) -> None:
    """Write the bundle, and run what was written."""
    provider = PROVIDERS[reduced.precision]
    with whole(target) as partial:
        shutil.copytree(directory, partial, dirs_exist_ok=True)
        files: dict[str, File] = {"encoder": reduced.encoder, "decoder": reduced.decoder}
        for half, model in models.items():
            (partial / files[half].file).write_bytes(serialized(model))
        update: dict[str, Any] = {
            "version": int(target.name),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "reduced": manifest.reduced | {provider: reduced},
        }
        if provider == "any":
            graphs = {half: getattr(manifest.graphs, half) for half in files}
            changed = {half: graph.model_copy(update=dict(files[half])) for half, graph in graphs.items()}
            update["graphs"] = manifest.graphs.model_copy(update=changed)
            if manifest.metrics:
                update["metrics"] = manifest.metrics | {"version": manifest.version}
        bundle.write_manifest(partial, manifest.model_copy(update=update))
        _write_card(partial)
        written = bundle.read_bundle(partial)
        encoder, decoder = written.graphs_of(provider)
        tried = Graphs(replace(written, encoder=encoder, decoder=decoder))
        tried.decode(tried.encode(samples.held_out[:1]).mean)


def _write_card(directory: Path) -> None:
    if (directory / "recipe.toml").exists():
        write_card(directory)
    else:  # imported: what its card says of the import is nowhere else
        add_reduced_section(directory / "README.md", bundle.read_manifest(directory))
