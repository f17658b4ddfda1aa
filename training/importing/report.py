"""Measurements and warnings of the round trip as text, for the terminal and for the card."""

import math
from collections.abc import Iterator

import numpy as np

from training.importing.checks.round_trip import RoundTrip
from training.importing.options import Answers
from training.importing.source import Source


def figures(trip: RoundTrip) -> Iterator[tuple[str, str]]:
    """Name and value of every measurement."""
    yield "images", f"{len(trip.samples.images)}, {trip.samples.title}"
    yield "reconstruction error (MSE)", f"{trip.error:.5f} per pixel, PSNR {psnr(trip.error):.1f} dB"
    yield "error of the mean image", f"{trip.mean_image_error:.5f}"
    comparison = trip.comparison
    for options, error in list(comparison.alternatives.items())[:2]:
        yield f"error with {options}", f"{error:.5f}, and without {comparison.error:.5f}, of {comparison.images} images"
    if trip.forward is not None:
        yield "the model's own forward pass", str(trip.forward)
    yield "offset of the latents", f"{trip.offset:.2f} (N(0, I) has 0)"
    yield "standard deviation of the latents", f"{trip.std:.2f} (N(0, I) has 1)"
    kl = trip.kl
    if kl is not None:
        yield "KL to N(0, I)", f"{kl.sum():.2f} nats per image, {np.median(kl):.3f} per dimension (median)"
    for name, trial in comparison.spread_trials.items():
        bound = "" if trial.negative_elbo is None else f", negative ELBO {trial.negative_elbo:.1f} nats per image"
        yield f"error of draws, spread taken as {name}", f"{trial.draw_error:.5f}{bound}"


def psnr(error: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of pixels in [0, 1]."""
    return math.inf if error == 0 else -10 * math.log10(error)


def warnings(trip: RoundTrip, source: Source, answers: Answers) -> Iterator[str]:
    """Problems to check before the bundle is served."""
    yield from source.notes
    forward = trip.forward
    if forward is not None and (forward.differs or forward.levels is None):
        family = "" if forward.family is None else f"; its parts are those of {forward.family}"
        yield f"the model's own forward pass, compared with decoder(encoder(x)): {forward}{family}"
    if not trip.samples.are_real:
        yield "no images were given, so the model was tried with synthetic ones: pass --images to see whether it works"
    comparison = trip.comparison
    if comparison.better_options is not None:
        yield f"the reconstructions are much better with {comparison.better_options}"
    elif trip.samples.are_real and trip.error > trip.mean_image_error:
        yield "the reconstructions are no better than the mean image: the model is untrained, or an answer is wrong"
    if comparison.better_spread is not None:
        yield f"draws explain the images better if the spread is taken as {comparison.better_spread}: check --posterior"
    if answers.prior == "standard-normal" and not trip.follows_prior and trip.samples.are_real:
        yield "the latents are not distributed like N(0, I), so samples of that prior mean little: pass --prior none"
