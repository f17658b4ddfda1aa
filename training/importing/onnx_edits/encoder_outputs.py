"""Which outputs of the encoder are the mean and the spread of the posterior, and what kind of spread it is."""

import re
from collections.abc import Callable, Sequence

from training.errors import ImportRefused
from training.importing.onnx_edits.random_operators import DRAWN
from training.importing.options import Layout, Options, Posterior, choices
from training.importing.source import Shape, Source, shape_of

NAMES: tuple[tuple[str, Posterior | None], ...] = (
    (r"log_?(var|cov|sigma_?(2|sq))|ln_?var|latent_parameters|moments", "log-variance"),
    (r"log_?(std|sigma|scale)", "log-std"),
    (r"(?<![a-z])(var|variance|cov|covariance)(?![a-z])", "variance"),
    (r"(?<![a-z])(std|stddev)(?![a-z])", "std"),
)
"""What outputs are called, the surest first, and what that says. What people call sigma may be anything."""
MEAN = re.compile(r"mean|mu\b|mu_|_mu|\bloc|embedding", re.IGNORECASE)

Heads = tuple[int, int | None, Posterior]


def choose_heads(
    source: Source, options: Options, layout: Layout, ask: Callable[[str, str, Sequence[str]], str]
) -> Heads:
    """Numbers of the outputs that are mean and spread, and the kind of spread.

    Two of the same number are one tensor of moments, the mean first along its channels.

    Raises:
        ImportRefused: there are more outputs than can be told apart, or none of the name that was passed.
    """
    names = source.encoder.outputs
    chosen = [
        _number(names, head, source.encoder.name) for head in options.heads or _default(names, source.encoder.name)
    ]
    if len(chosen) == 2:
        kind = options.posterior or _kind(names[chosen[1]]) or _ask(ask)
        return (chosen[0], None, "none") if kind == "none" else (chosen[0], chosen[1], kind)
    return _single(source, chosen[0], options.posterior, layout, ask)


def _single(
    source: Source,
    number: int,
    posterior: Posterior | None,
    layout: Layout,
    ask: Callable[[str, str, Sequence[str]], str],
) -> Heads:
    """One output: moments, where it has twice as many channels as the decoder takes, or the mean alone."""
    axis = -1 if layout == "nhwc" else 1
    given = _channels(shape_of(source.encoder.model.graph.output[number]), axis)
    taken = _channels(source.decoder.input, axis)
    is_double = given is not None and taken is not None and given == 2 * taken
    is_equal = given is not None and given == taken
    if is_equal and posterior in (None, "none"):
        return number, None, "none"
    if is_equal:
        raise ImportRefused(
            f"{source.encoder.name} gives one tensor of {given} channels, as many as {source.decoder.name} takes: it "
            "has no posterior, so pass --posterior none"
        )
    kind = posterior or (_kind(source.encoder.outputs[number]) if is_double else None) or _ask(ask)
    return (number, None, "none") if kind == "none" else (number, number, kind)


def _channels(shape: Shape, axis: int) -> int | None:
    return shape[axis] if len(shape) > 1 else None


def _default(names: list[str], where: str) -> list[str]:
    """The outputs that are meant, where none were named."""
    if tuple(names) == DRAWN or len(names) == 1:
        return names
    means = [name for name in names if MEAN.search(name) and not _kind(name)]
    spreads = [name for name in names if _kind(name)]
    if len(means) == 1 and len(spreads) == 1:
        return [*means, *spreads]
    if len(names) == 2 and not spreads:
        return names
    listed = ", ".join(f"`{name}`" for name in names)
    raise ImportRefused(f"{where} has the outputs {listed}: say which are mean and spread with --heads mean,spread")


def _number(names: list[str], head: str, where: str) -> int:
    if head in names:
        return names.index(head)
    raise ImportRefused(f"{where} has no output of the name in --heads; it has {', '.join(names)}")


def _kind(name: str) -> Posterior | None:
    """What an output's name says about a spread."""
    found = (kind for pattern, kind in NAMES if re.search(pattern, name, re.IGNORECASE))
    return next(found, None)


def _ask(ask: Callable[[str, str, Sequence[str]], str]) -> Posterior:
    return ask("posterior", "What the encoder says about the spread", choices(Posterior))  # type: ignore[return-value]
