"""The first runs of a bundle's graphs: they give what the manifest says, row by row, and how long that takes."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from app.bundle.geometry import Geometry
from app.bundle.manifest import Manifest
from app.errors import BundleError, InferenceFailed
from app.inference.batcher import Latency, Run
from app.inference.session import Arrays, Session
from app.maths.gaussian import Floats

Pixels = NDArray[np.uint8]
Lane = Literal["encoder", "decoder", "parameters", "score", "explain"]
"""What rows are run for; each has a lane of its own."""

SIDE = 64
"""Pixels a side, about, of images that graphs for any size are tried with."""
TOLERANCE, LEVELS = 1e-3, 1
"""Largest difference of a value in a batch from the value alone, absolute plus relative; and of a grey level."""
REDUCED_TOLERANCE, REDUCED_LEVELS = 2e-2, 4
"""Of graphs with smaller weights: a kernel of another batch size may round another way."""


def trial_sizes(geometry: Geometry) -> list[tuple[int, int]]:
    """Heights and widths of the images that a model is tried with: its own or, of any size, a square and another."""
    if geometry.size is not None:
        return [geometry.size]
    side = max(2, -(-SIDE // geometry.stride)) * geometry.stride
    return [(side, side), (side, side + side // 2 // geometry.stride * geometry.stride)]


def check_graphs(
    manifest: Manifest, geometry: Geometry, encoder: Session, decoder: Session, *, reduced: bool = False
) -> None:
    """Run each graph at each size, and compare what it gives with what the manifest says; `reduced` tells that it has
    smaller weights, and rounds more.

    Raises:
        BundleError: it does not run, gives another tensor or, where any size will do, depends on its batch.
    """
    for height, width in trial_sizes(geometry):
        images = np.zeros((2, geometry.channels, height, width), np.uint8)
        latents = np.zeros((2, *geometry.latent_of(height, width)), np.float32)
        outputs = dict.fromkeys(manifest.graphs.encoder.outputs, latents[:1])
        _check_shapes(encoder, {"image": images[:1]}, outputs)
        _check_shapes(decoder, {"latent": latents[:1]}, {"image": images[:1]})
        if geometry.size is None:
            noise = np.random.default_rng(0)
            pixels, draws = (
                noise.integers(0, 256, images.shape, np.uint8),
                noise.standard_normal(latents.shape, np.float32),
            )
            _check_rows(encoder, {"image": pixels}, list(outputs), reduced=reduced)
            _check_rows(decoder, {"latent": draws}, ["image"], reduced=reduced)


def _check_shapes(session: Session, inputs: Arrays, expected: Arrays) -> None:
    outputs = _run(session, inputs, list(expected))
    for name, like in expected.items():
        if (outputs[name].shape, outputs[name].dtype) != (like.shape, like.dtype):
            raise BundleError(f"{session.name} gives another `{name}` than its manifest says")


def _check_rows(session: Session, inputs: Arrays, names: list[str], *, reduced: bool) -> None:
    """Refuse a graph whose rows depend on each other."""
    tolerance, levels = (REDUCED_TOLERANCE, REDUCED_LEVELS) if reduced else (TOLERANCE, LEVELS)
    together = _run(session, inputs, names)
    alone = _run(session, {name: rows[:1] for name, rows in inputs.items()}, names)
    for name in names:
        first, own = together[name][:1].astype(np.float64), alone[name].astype(np.float64)
        allowed = levels if alone[name].dtype == np.uint8 else tolerance * (1 + np.abs(own))
        if first.shape != own.shape or not (np.abs(first - own) <= allowed).all():
            raise BundleError(f"{session.name} gives another `{name}` of a row that is alone than in a batch")


def _run(session: Session, inputs: Arrays, names: list[str]) -> Arrays:
    try:
        return session.run(inputs, names)
    except InferenceFailed as error:
        raise BundleError(
            f"{session.name} does not run as its manifest says: {str(error.__cause__).splitlines()[0]}"
        ) from error


def measure(
    run: Callable[[Lane], Run], image: Pixels, latent: Floats, decoder: str, *, scores: bool
) -> dict[Lane, Latency]:
    """How long the graphs take for rows like `image` `[1, C, H, W]` and `latent` `[1, *latent]`; `run` gives what runs
    each, `decoder` is that graph's name, and `scores` tells whether there is a likelihood of images.

    Raises:
        BundleError: a graph does not run with several rows, or does not score.
    """
    try:
        latency: dict[Lane, Latency] = {
            "encoder": Latency.measured(run("encoder"), image),
            "decoder": Latency.measured(run("decoder"), latent),
        }
        run("parameters")(np.repeat(latent, 8, axis=0))
    except InferenceFailed as error:
        raise BundleError(
            f"{error}: it does not run with several rows: {str(error.__cause__).splitlines()[0]}"
        ) from error
    if scores:
        explained = np.zeros((1, latent.size + image.size), np.float32)
        try:
            latency["score"] = Latency.measured(run("score"), explained)
        except (ValueError, InferenceFailed) as error:
            raise BundleError(f"{decoder} does not score images of its manifest's likelihood") from error
    # What the graphs give besides takes no time that can be told from theirs.
    latency["parameters"], latency["explain"] = latency["decoder"], latency.get("score", latency["decoder"])
    return latency
