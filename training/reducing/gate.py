"""What a bundle with smaller weights must show before it is written: no harm and, with int8, that it is faster."""

import hashlib
from dataclasses import replace
from pathlib import Path

from onnx import ModelProto

from app.bundle.manifest import Bundle, File, Graph, Reduced
from app.errors import ExecutionProviderError, InferenceFailed
from app.inference.session import ExecutionProvider, execution_providers
from training.offline import OfflineGraphs as Graphs
from training.reducing.halves import emulate_half
from training.reducing.measure import TOGETHER, has_likelihood, measure_change, measure_speed
from training.reducing.options import PROVIDERS, Options, Precision
from training.reducing.refusal import ReductionRefused
from training.reducing.samples import Samples


def measure(read: Bundle, models: dict[str, ModelProto], options: Options, samples: Samples) -> Reduced:
    """What the graphs change, and how fast they are on the provider that they are for, if this machine has it."""
    manifest, precision = read.manifest, options.precision
    contents = {half: serialized(model) for half, model in models.items()}
    provider = _provider(read) if precision == "fp16" else "cpu"
    emulates = precision == "fp16" and provider == "cpu"
    measured = {half: _emulated(model) for half, model in models.items()} if emulates else contents
    encoder, decoder = measured.get("encoder", read.encoder), measured.get("decoder", read.decoder)
    pair = read, replace(read, encoder=encoder, decoder=decoder)
    before, now = (Graphs(each, execution_provider=provider) for each in pair)
    try:
        change = measure_change(before, now, samples.held_out, options.seed)
    except InferenceFailed as error:
        raise ReductionRefused(f"{error} with {precision} weights, {error.__cause__}: nothing is written") from error
    alone = batched = None
    if not emulates:
        before, now = (Graphs(each, execution_provider=provider, threads=1) for each in pair)
        alone, batched = measure_speed(before, now, samples.held_out, contents)
    graphs = manifest.graphs
    sizes = {"encoder": len(read.encoder), "decoder": len(read.decoder)}
    return Reduced(
        precision=precision,
        encoder=_file(graphs.encoder, precision, contents.get("encoder")),
        decoder=_file(graphs.decoder, precision, contents.get("decoder")),
        source=manifest.version,
        measured_on=provider,
        split=samples.split,
        images=len(samples.held_out),
        seed=options.seed,
        measure="negative_elbo" if has_likelihood(manifest) else "psnr",
        change=round(change.change, 4),
        standard_error=round(change.standard_error, 4),
        bound=options.bound_nats if has_likelihood(manifest) else options.bound_psnr,
        mean_change=round(change.mean_change, 4),
        pixel_change=change.pixel_change,
        size=sum((sizes | {half: len(content) for half, content in contents.items()}).values()),
        size_before=sum(sizes.values()),
        speed_alone=alone and round(alone, 2),
        speed_batched=batched and round(batched, 2),
    )


def _provider(read: Bundle) -> ExecutionProvider:
    """CUDA, where there is one, also for those whose ONNX Runtime has it and whose machine has not."""
    provider = execution_providers("auto")[0]
    try:
        Graphs(read, execution_provider=provider)
    except ExecutionProviderError:
        return "cpu"
    return provider


def _emulated(model: ModelProto) -> bytes:
    copy = ModelProto.FromString(model.SerializeToString())
    emulate_half(copy)
    return serialized(copy)


def serialized(model: ModelProto) -> bytes:
    """The bytes of a model's file, which are the same each time."""
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _file(file: Graph, precision: Precision, content: bytes | None) -> File:
    """A graph's file, of other content if there is any, under a name of its own if the other one stays."""
    if content is None:
        return File(file=file.file, sha256=file.sha256)
    name = file.file if PROVIDERS[precision] == "any" else f"{Path(file.file).stem}.{precision}.onnx"
    return File(file=name, sha256=hashlib.sha256(content).hexdigest())


def refusal(reduced: Reduced, faster: float) -> str | None:
    """Why weights are not to be reduced so; None if they may be. `faster` is what int8 must be at least."""
    what, unit = ("-ELBO", "nats an image") if reduced.measure == "negative_elbo" else ("PSNR", "dB")
    if not abs(reduced.change) + 2 * reduced.standard_error <= reduced.bound:  # and not `>`, which a NaN would pass
        return (
            f"{reduced.precision} weights change {what} by {reduced.change:+.4f} ± {reduced.standard_error:.4f} "
            f"{unit}, and the bound is {reduced.bound:g}"
        )
    alone, batched = reduced.speed_alone or 0.0, reduced.speed_batched or 0.0
    if reduced.precision == "int8" and min(alone, batched) < faster:
        return (
            f"int8 weights are {alone:.2f} times as fast for a row alone and {batched:.2f} times for {TOGETHER}, and "
            f"{faster:g} times was asked for"
        )
    return None
