"""From the words of a command line to an import, and its report."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import ImportRefused
from training.importing.options import (
    Binarization,
    Layout,
    Options,
    Output,
    Posterior,
    Prior,
    choices,
    read_image,
    read_range,
)
from training.importing.pipeline import Label, import_model
from training.importing.prompt import ask
from training.importing.report import figures, warnings
from training.importing.source import Source
from training.importing.sources.formats import read_source

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Passed:
    """The command's parameters, as they were passed."""

    source: list[Path] | None
    name: str
    version: int | None
    description: str | None
    license: str
    dataset: str
    binarization: str
    models: Path
    replace: bool
    images: Path | None
    force: bool
    class_: str | None
    arguments: list[str] | None
    weights: Path | None
    encoder: str | None
    decoder: str | None
    image: str | None
    layout: str | None
    bgr: bool | None
    range_: str | None
    output: str | None
    output_range: str | None
    picture: str | None
    heads: str | None
    posterior: str | None
    prior: str | None
    scaling_factor: float | None
    shift_factor: float | None


def run(passed: Passed) -> None:
    """Import, and say what came of it.

    Raises:
        ImportRefused: what is wrong and where; no bundle was written.
    """
    options, label = options_of(passed), label_of(passed)
    source = _read(passed, options)
    done = import_model(source, options, label, models=passed.models, images=passed.images, ask=ask, force=passed.force)
    for name, value in figures(done.trip):
        print(f"{name:<44} {value}")
    for words in warnings(done.trip, done.answers):
        print(f"warning: {words}", file=sys.stderr)
    print(f"Imported: {done.directory}. Next: see its README.md, then VAE_MODELS_DIR={passed.models} python -m app")


def _read(passed: Passed, options: Options) -> Source:
    if passed.class_ is None:
        if passed.weights is not None or passed.arguments:
            raise ImportRefused("--weights and --arg go with --class")
        return read_source(passed.source or [], options, ask)
    if passed.source:
        raise ImportRefused("--class goes without a SOURCE: its weights are passed with --weights")
    from training.importing.sources.torch_class import Recipe, read_class

    recipe = Recipe(passed.class_, passed.arguments or (), passed.weights, passed.encoder, passed.decoder)
    return read_class(recipe, options, ask)


def options_of(passed: Passed) -> Options:
    """What was passed of the graphs.

    Raises:
        ImportRefused: a value that its option does not take.
    """
    heads = tuple(passed.heads.split(",")) if passed.heads else None
    if heads is not None and len(heads) > 2:
        raise ImportRefused("--heads names one output or two: mean,spread")
    values: dict[str, Any] = {
        "image": passed.image and read_image(passed.image),
        "range": passed.range_ and read_range(passed.range_),
        "output_range": passed.output_range and read_range(passed.output_range),
        "layout": _one_of("layout", passed.layout, choices(Layout)),
        "output": _one_of("output", passed.output, choices(Output)),
        "posterior": _one_of("posterior", passed.posterior, choices(Posterior)),
        "prior": _one_of("prior", passed.prior, choices(Prior)),
    }
    return Options(
        **{name: value or None for name, value in values.items()},
        bgr=passed.bgr,
        picture=passed.picture,
        heads=heads,
        scaling_factor=passed.scaling_factor,
        shift_factor=passed.shift_factor,
    )


def _one_of(option: str, value: str | None, allowed: Sequence[str]) -> Any:
    if value is not None and value not in allowed:
        raise ImportRefused(f"--{option} is one of {', '.join(allowed)}")
    return value


def label_of(passed: Passed) -> Label:
    """What the bundle is called: its version is the next that is free, if none was passed.

    Raises:
        ImportRefused: a name or a version that cannot be, or a version that is there.
    """
    if not NAME.fullmatch(passed.name):
        raise ImportRefused(
            "--name is made of small letters, digits, `.`, `_` and `-`, and begins with a letter or digit"
        )
    binarization: Binarization = _one_of("binarization", passed.binarization, choices(Binarization))
    folder = passed.models / passed.name
    there = [int(path.name) for path in folder.glob("*") if path.name.isdecimal()] if folder.is_dir() else []
    version = passed.version or max(there, default=0) + 1
    if version in there and not passed.replace:
        raise ImportRefused(f"{folder / str(version)} is there: pass another --version, or --replace")
    description = passed.description or f"{passed.name}, imported."
    return Label(passed.name, version, description, passed.license, passed.dataset, binarization)
