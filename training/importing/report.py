"""The round trip in words: on the terminal, and on the card."""

import math
from collections.abc import Iterator

import numpy as np

from training.importing.checks.round_trip import RoundTrip
from training.importing.options import Answers


def figures(trip: RoundTrip) -> Iterator[tuple[str, str]]:
    """Name and value of everything that was measured."""
    yield "images", f"{len(trip.samples.images)}, {trip.samples.title}"
    yield "reconstruction error (MSE)", f"{trip.error:.5f} a pixel, PSNR {psnr(trip.error):.1f} dB"
    yield "of the mean image instead", f"{trip.mean_image_error:.5f}"
    for options, error in list(trip.alternatives.items())[:2]:
        yield f"with {options}", f"{error:.5f}"
    yield "latents' mean, from 0", f"{trip.offset:.2f}"
    yield "latents' standard deviation", f"{trip.std:.2f} (N(0, I) has 1)"
    kl = trip.kl
    if kl is not None:
        yield "KL to N(0, I)", f"{kl.sum():.2f} nats an image, {np.median(kl):.3f} a dimension (median)"
    for name, reading in trip.readings.items():
        bound = "" if reading.negative_elbo is None else f", negative ELBO {reading.negative_elbo:.1f} nats an image"
        yield f"draws, spread read as {name}", f"{reading.draw_error:.5f}{bound}"


def psnr(error: float) -> float:
    """Peak signal to noise ratio of a mean squared error of pixels in [0, 1], in dB."""
    return math.inf if error == 0 else -10 * math.log10(error)


def refusal(trip: RoundTrip) -> str | None:
    """Why the bundle is not written, if so: real images come back much better under another answer."""
    if trip.better is None or not trip.samples.are_real:
        return None
    error = trip.alternatives[trip.better]
    return (
        f"the images come back with an error of {trip.error:.5f}, and with {trip.better} they would with {error:.5f}: "
        "pass that, or --force to write the bundle as it is"
    )


def warnings(trip: RoundTrip, answers: Answers) -> Iterator[str]:
    """What a person should look at before the bundle is served."""
    if not trip.samples.are_real:
        yield "no images were given, so made pictures went through the model: pass --images to see whether it works"
    if trip.better is not None:
        yield f"the images come back much better with {trip.better}"
    elif trip.samples.are_real and trip.error > trip.mean_image_error:
        yield "images come back no better than their mean: the model is untrained, or an answer is wrong"
    if trip.better_reading is not None:
        yield f"draws explain the images better if the spread is read as {trip.better_reading}: look at --posterior"
    if answers.prior == "standard-normal" and not trip.follows_prior and trip.samples.are_real:
        yield "the latents are not spread like N(0, I), so that draws from it mean little: --prior none says so"
