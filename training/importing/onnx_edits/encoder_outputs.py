"""The encoder's outputs: which ones are the posterior's mean and spread, and the kind of spread."""

import re
from collections.abc import Sequence

from training.errors import ImportRefused
from training.importing.onnx_edits.random_operators import PARAMETERS
from training.importing.options import ImportOptions, Layout, PosteriorKind, parse_heads
from training.importing.prompt import POSTERIOR, Ask
from training.importing.source import Source, SourceGraph, shape_of

SPREAD_NAMES: tuple[tuple[str, PosteriorKind], ...] = (
    (r"log_?(var|cov|sigma_?(2|sq))|ln_?var|latent_parameters|moments", "log-variance"),
    (r"log_?(std|sigma|scale)", "log-std"),
    (r"(?<![a-z])(var|variance|cov|covariance)(?![a-z])", "variance"),
    (r"(?<![a-z])(std|stddev)(?![a-z])", "std"),
)
"""Patterns of output names, and the kind of spread of each; the first match counts. `sigma` is left out, because models
use that name for any kind."""
MEAN_NAMES = re.compile(r"mean|mu\b|mu_|_mu|\bloc|embedding", re.IGNORECASE)

PosteriorOutputs = tuple[int, int | None, PosteriorKind]
"""Indices of the outputs that are mean and spread, and the kind of spread. Equal indices mean that one tensor holds the
mean and then the spread along its channels."""


def choose_posterior_outputs(source: Source, options: ImportOptions, layout: Layout, ask: Ask) -> PosteriorOutputs:
    """Choose by --heads and --posterior, else by the names and shapes of the outputs.

    Raises:
        ImportRefused: no output has a name in --heads.
        OpenQuestion: the outputs cannot be told apart, and there is no terminal to ask at.
    """
    encoder = source.encoder
    chosen = [_index(encoder, name) for name in options.heads or _default(encoder, ask)]
    if len(chosen) == 1:
        return _choose_single(source, chosen[0], options.posterior, layout, ask)
    kind = options.posterior or _spread_kind(encoder.outputs[chosen[1]]) or _ask_kind(ask)
    return (chosen[0], None, "none") if kind == "none" else (chosen[0], chosen[1], kind)


def _choose_single(
    source: Source, index: int, posterior: PosteriorKind | None, layout: Layout, ask: Ask
) -> PosteriorOutputs:
    """Choose from one output: it is mean and spread if it has twice as many channels as the decoder takes."""
    axis = -1 if layout == "nhwc" else 1
    shapes = shape_of(source.encoder.model.graph.output[index]), source.decoder.input
    channels, taken = (shape[axis] if len(shape) > 1 else None for shape in shapes)
    ratio = None if channels is None or taken is None else channels / taken
    if ratio == 1:
        if posterior in (None, "none"):
            return index, None, "none"
        raise ImportRefused(
            f"{source.encoder.name} gives one tensor of {channels} channels, as many as {source.decoder.name} takes: "
            "it has no posterior, so pass --posterior none"
        )
    kind = posterior or (_spread_kind(source.encoder.outputs[index]) if ratio == 2 else None) or _ask_kind(ask)
    return (index, None, "none") if kind == "none" else (index, index, kind)


def _default(encoder: SourceGraph, ask: Ask) -> Sequence[str]:
    """Names of the outputs to take if --heads was not passed; ask if they cannot be told apart."""
    names = encoder.outputs
    if tuple(names) == PARAMETERS or len(names) == 1:
        return names
    means = [name for name in names if MEAN_NAMES.search(name) and not _spread_kind(name)]
    spreads = [name for name in names if _spread_kind(name)]
    if len(means) == 1 and len(spreads) == 1:
        return [*means, *spreads]
    if len(names) == 2 and not spreads:
        return names
    listed = ", ".join(f"`{name}`" for name in names)
    question = f"Mean,spread: two of {listed}, the outputs of {encoder.name}; or one that is both"
    return parse_heads(ask("heads", question, ()))


def _index(encoder: SourceGraph, name: str) -> int:
    if name in encoder.outputs:
        return encoder.outputs.index(name)
    raise ImportRefused(f"{encoder.name} has no output of the name in --heads; it has {', '.join(encoder.outputs)}")


def _spread_kind(name: str) -> PosteriorKind | None:
    """Kind of spread by the name of an output; None if no pattern matches."""
    return next((kind for pattern, kind in SPREAD_NAMES if re.search(pattern, name, re.IGNORECASE)), None)


def _ask_kind(ask: Ask) -> PosteriorKind:
    kind: PosteriorKind = ask(*POSTERIOR)
    return kind
