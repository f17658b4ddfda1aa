"""Warm-up of a bundle's graphs: checks their outputs against the manifest and row by row, and times them."""

import numpy as np

from app.bundle.geometry import Geometry
from app.errors import BundleError, InferenceFailed
from app.inference.lanes import Lane, Sessions
from app.inference.latency import Latency
from app.inference.session import Session
from app.maths.arrays import Arrays

TRIAL_SIDE = 64
"""Side, in pixels, of the trial images of a model for any size; it is rounded up to the stride."""
MAX_DIFFERENCE, MAX_LEVELS = 1e-3, 1
"""Maximum difference of a row in a batch from the row alone: absolute plus relative for floats, levels for pixels."""
REDUCED_MAX_DIFFERENCE, REDUCED_MAX_LEVELS = 2e-2, 4
"""Maximum differences for reduced graphs, whose weights are smaller: kernels round differently by batch size."""


def trial_sizes(geometry: Geometry) -> list[tuple[int, int]]:
    """Heights and widths of a model's trial images: its own size or, for any size, a square and a rectangle."""
    if geometry.size is not None:
        return [geometry.size]
    side = max(2, -(-TRIAL_SIDE // geometry.stride)) * geometry.stride
    return [(side, side), (side, side + side // 2 // geometry.stride * geometry.stride)]


def check_graphs(sessions: Sessions, *, is_reduced: bool) -> None:
    """Run each graph at each trial size, and compare its outputs with the manifest.

    Reduced graphs have smaller weights, and may differ more.

    Raises:
        BundleError: a graph does not run, an output is not as in the manifest or, if images may be of any size, a row's
            output depends on its batch.
    """
    geometry, encoder, decoder = sessions.geometry, sessions.encoder, sessions.decoder
    for height, width in trial_sizes(geometry):
        images = np.zeros((2, geometry.channels, height, width), np.uint8)
        latents = np.zeros((2, *geometry.latent_of(height, width)), np.float32)
        outputs = dict.fromkeys(sessions.manifest.graphs.encoder.outputs, latents[:1])
        _check_shapes(encoder, {"image": images[:1]}, outputs)
        _check_shapes(decoder, {"latent": latents[:1]}, {"image": images[:1]})
        if geometry.size is None:
            generator = np.random.default_rng(0)
            pixels = generator.integers(0, 256, images.shape, np.uint8)
            draws = generator.standard_normal(latents.shape, np.float32)
            _check_rows(encoder, {"image": pixels}, list(outputs), is_reduced=is_reduced)
            _check_rows(decoder, {"latent": draws}, ["image"], is_reduced=is_reduced)


def measure(sessions: Sessions) -> dict[Lane, Latency | None]:
    """The latency of each lane, for rows of the first trial size.

    A graph whose work depends on the values of its rows has None: its time for zeros says nothing about other rows, so
    it must never run on the event loop.

    Raises:
        BundleError: a graph does not run with several rows, or does not score.
    """
    geometry = sessions.geometry
    height, width = trial_sizes(geometry)[0]
    image = np.zeros((1, geometry.channels, height, width), np.uint8)
    latent = np.zeros((1, *geometry.latent_of(height, width)), np.float32)
    try:
        encoder = Latency.measured(sessions.encode, image)
        decoder = Latency.measured(sessions.decode, latent)
        sessions.parameters(np.repeat(latent, 8, axis=0))
    except InferenceFailed as error:
        raise BundleError(
            f"{error}: it does not run with several rows: {str(error.__cause__).splitlines()[0]}"
        ) from error
    # The parameters of the likelihood, and the terms of each pixel, add no measurable time.
    latencies: dict[Lane, Latency] = {"encoder": encoder, "decoder": decoder, "parameters": decoder}
    if sessions.can_score:
        try:
            score = Latency.measured(sessions.score, np.zeros((1, latent.size + image.size), np.float32))
        except (ValueError, InferenceFailed) as error:
            name = sessions.decoder.name
            raise BundleError(f"{name} does not score images of its manifest's likelihood") from error
        latencies |= {"score": score, "explain": score}
    of_lane = {lane: sessions.encoder if lane == "encoder" else sessions.decoder for lane in latencies}
    return {lane: latency if of_lane[lane].has_known_cost else None for lane, latency in latencies.items()}


def _check_shapes(session: Session, inputs: Arrays, expected: Arrays) -> None:
    outputs = _run(session, inputs, list(expected))
    for name, like in expected.items():
        if (outputs[name].shape, outputs[name].dtype) != (like.shape, like.dtype):
            raise BundleError(f"{session.name} gives another `{name}` than its manifest says")


def _check_rows(session: Session, inputs: Arrays, names: list[str], *, is_reduced: bool) -> None:
    """Refuse a graph whose rows depend on each other."""
    difference = REDUCED_MAX_DIFFERENCE if is_reduced else MAX_DIFFERENCE
    levels = REDUCED_MAX_LEVELS if is_reduced else MAX_LEVELS
    together = _run(session, inputs, names)
    alone = _run(session, {name: rows[:1] for name, rows in inputs.items()}, names)
    for name in names:
        first, own = together[name][:1].astype(np.float64), alone[name].astype(np.float64)
        allowed = levels if alone[name].dtype == np.uint8 else difference * (1 + np.abs(own))
        if first.shape != own.shape or not (np.abs(first - own) <= allowed).all():
            raise BundleError(f"{session.name} gives another `{name}` of a row that is alone than in a batch")


def _run(session: Session, inputs: Arrays, names: list[str]) -> Arrays:
    try:
        return session.run(inputs, names)
    except InferenceFailed as error:
        raise BundleError(
            f"{session.name} does not run as its manifest says: {str(error.__cause__).splitlines()[0]}"
        ) from error
