"""The quality gate of a reduction: it must change results little and, for int8, be faster than the original."""

import hashlib
from dataclasses import replace
from pathlib import Path

from onnx import ModelProto

from app.bundle.files import Bundle
from app.bundle.manifest import File, GraphFile, Reduced
from app.errors import ExecutionProviderError, InferenceFailed
from app.inference.session import ExecutionProvider, execution_providers
from training.errors import ReductionRefused
from training.offline import OfflineGraphs
from training.reducing.comparison import MANY_ROWS, has_likelihood, measure_change, measure_speed_up
from training.reducing.half_precision import emulate_half
from training.reducing.options import PROVIDERS, Precision, ReduceOptions
from training.reducing.samples import ReductionImages


def measure_reduction(
    read: Bundle, models: dict[str, ModelProto], options: ReduceOptions, images: ReductionImages
) -> Reduced:
    """Measure the change and the speed of the reduced graphs in `models`, whose keys are `encoder` and `decoder`.

    They run on the execution provider that they are for. If this machine has no CUDA, fp16 is emulated on the CPU, and
    its speed is not measured.

    Raises:
        ReductionRefused: a reduced graph returns values that are not finite.
    """
    manifest, precision = read.manifest, options.precision
    contents = {name: model.SerializeToString(deterministic=True) for name, model in models.items()}
    provider = _provider(read) if precision == "fp16" else "cpu"
    is_emulated = precision == "fp16" and provider == "cpu"
    run = {name: emulate_half(model).SerializeToString() for name, model in models.items()} if is_emulated else contents
    bundles = read, replace(read, **run)
    original, reduced = (OfflineGraphs(bundle, execution_provider=provider) for bundle in bundles)
    try:
        change = measure_change(original, reduced, images.held_out, options.seed)
    except InferenceFailed as error:
        raise ReductionRefused(f"with {precision} weights, {error}: nothing is written") from error
    alone = together = None
    if not is_emulated:
        original, reduced = (OfflineGraphs(bundle, execution_provider=provider, threads=1) for bundle in bundles)
        alone, together = measure_speed_up(original, reduced, images.held_out, contents)
    sizes = {"encoder": len(read.encoder), "decoder": len(read.decoder)}
    return Reduced.model_validate(
        {
            "precision": precision,
            "encoder": _file(manifest.graphs.encoder, precision, contents.get("encoder")),
            "decoder": _file(manifest.graphs.decoder, precision, contents.get("decoder")),
            "source": manifest.version,
            "measured_on": provider,
            "split": images.split,
            "images": len(images.held_out),
            "seed": options.seed,
            "measure": "negative_elbo" if has_likelihood(manifest) else "psnr",
            "bound": options.bound_nats if has_likelihood(manifest) else options.bound_psnr,
            "size": sum((sizes | {name: len(content) for name, content in contents.items()}).values()),
            "size_before": sum(sizes.values()),
            "speed_alone": alone and round(alone, 2),
            "speed_batched": together and round(together, 2),
        }
        | change
    )


def _provider(read: Bundle) -> ExecutionProvider:
    """CUDA if it is usable on this machine, else CPU."""
    provider = execution_providers("auto")[0]
    try:
        OfflineGraphs(read, execution_provider=provider)
    except ExecutionProviderError:  # ONNX Runtime has CUDA, but the machine does not
        return "cpu"
    return provider


def _file(graph: GraphFile, precision: Precision, content: bytes | None) -> File:
    """Manifest entry of a graph: unchanged if `content` is None, under a name of its own if the original stays."""
    if content is None:
        return File(file=graph.file, sha256=graph.sha256)
    name = graph.file if PROVIDERS[precision] == "any" else f"{Path(graph.file).stem}.{precision}.onnx"
    return File(file=name, sha256=hashlib.sha256(content).hexdigest())


def reason_to_refuse(reduced: Reduced, min_speed_up: float) -> str | None:
    """The reason not to write a reduction, or None. `min_speed_up` is the minimum speed-up of int8."""
    measure, unit = ("-ELBO", "nats an image") if reduced.measure == "negative_elbo" else ("PSNR", "dB")
    if not abs(reduced.change) + 2 * reduced.standard_error <= reduced.bound:  # not `>`: that would accept NaN
        return (
            f"{reduced.precision} weights change {measure} by {reduced.change:+.4f} ± {reduced.standard_error:.4f} "
            f"{unit}, and the bound is {reduced.bound:g}"
        )
    alone, together = reduced.speed_alone or 0.0, reduced.speed_batched or 0.0
    if reduced.precision == "int8" and min(alone, together) < min_speed_up:
        return (
            f"int8 weights are {alone:.2f} times as fast for a row alone and {together:.2f} times for {MANY_ROWS}, and "
            f"{min_speed_up:g} times was asked for"
        )
    return None
