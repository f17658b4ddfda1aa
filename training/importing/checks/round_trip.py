"""Sample images encoded and decoded, as the answers say and as others would have it: what a wrong answer shows in."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from app.maths import gaussian
from app.maths.gaussian import Floats
from app.maths.likelihood import cross_entropy
from training.importing.checks.reference import Pixels, Reference, levels, picture
from training.importing.checks.samples import Samples
from training.importing.options import RANGES, Answers, Posterior

COMPARED = 64
"""Images that other answers are tried with: a quarter of all, if that is less."""
MUCH = 1.5
"""An answer is wrong if its error is more than so many times another's, and the mean image's error as well."""
NATS, SHARE = 1.0, 0.01
"""Another reading of the spread is told of if its negative ELBO is lower by so many nats and by this share."""
WIDEST, FURTHEST = 2.0, 1.0
"""Latents that follow N(0, I) have a standard deviation within this factor of 1, and a mean nearer to 0 than that."""
EDGE = np.float32(1e-6)
TWINS: dict[Posterior, Posterior] = {
    "log-variance": "log-std",
    "log-std": "log-variance",
    "variance": "std",
    "std": "variance",
}
"""What a spread may be mistaken for."""


@dataclass(frozen=True)
class Reading:
    """How draws from the posteriors come back, if the spread is read in one way."""

    draw_error: float
    """Mean squared error of their decoded images."""
    negative_elbo: float | None
    """In nats an image, of grey values; None without a likelihood. A squared error alone does not tell how much noise
    the latents were trained to bear, so that no other reading could be called better by it."""


@dataclass(frozen=True)
class RoundTrip:
    """What came out. Errors are mean squared errors a pixel, of pixels in [0, 1]."""

    samples: Samples
    reconstructions: Pixels
    """Grey levels `[N, C, H, W]`."""
    posterior: gaussian.Posterior
    error: float
    mean_image_error: float
    """Of the mean of all images in place of each: what a model that knows nothing has."""
    alternatives: dict[str, float]
    """Errors of other answers, by the options to pass for them; the best first."""
    readings: dict[str, Reading]
    """By how the spread is read, the answer's first; empty without one."""

    @property
    def better(self) -> str | None:
        """Options under which the images come back much better, if there are any."""
        if not self.alternatives:
            return None
        options, error = next(iter(self.alternatives.items()))
        return options if MUCH * error < min(self.error, self.mean_image_error) else None

    @property
    def better_reading(self) -> str | None:
        """The reading of the spread that explains the images better, if it is not the answer's."""
        if not self.readings:
            return None
        (_, own), (name, other) = self.readings.items()
        if own.negative_elbo is not None and other.negative_elbo is not None:
            least = max(NATS, SHARE * abs(own.negative_elbo))
            return name if own.negative_elbo - other.negative_elbo > least else None
        return name if own.draw_error > self.mean_image_error > MUCH * other.draw_error else None

    @property
    def std(self) -> float:
        """Of the latents of all images together, draws from their posteriors; the mean over the dimensions."""
        mean = self.posterior.mean.astype(np.float64)
        within = (
            0.0
            if self.posterior.log_std is None
            else np.exp(2 * self.posterior.log_std.astype(np.float64)).mean(axis=0)
        )
        return float(np.sqrt(mean.var(axis=0) + within).mean())

    @property
    def offset(self) -> float:
        """Distance of the latents' mean from 0; the mean over the dimensions."""
        return float(np.abs(self.posterior.mean.mean(axis=0, dtype=np.float64)).mean())

    @property
    def follows_prior(self) -> bool:
        """Whether the latents are spread about as N(0, I) is."""
        return 1 / WIDEST < self.std < WIDEST and self.offset < FURTHEST

    @property
    def kl(self) -> Floats | None:
        """KL(q(z|x) || N(0, I)) of every dimension, in nats, the mean over the images; None without a spread."""
        return None if self.posterior.log_std is None else self.posterior.kl().mean(axis=0)


def round_trip(reference: Reference, samples: Samples) -> RoundTrip:
    """Encode and decode the samples as the answers say, and a part of them as other answers would."""
    answers, images = reference.answers, samples.images
    posterior = reference.encode(images)
    decoded = reference.decode(posterior.mean)
    wanted = unit(images)
    some = images[: min(COMPARED, max(4, len(images) // 4))]
    return RoundTrip(
        samples,
        picture(decoded, answers),
        posterior,
        error=_error(decoded, answers, wanted),
        mean_image_error=float(np.square(wanted - wanted.mean(axis=0)).mean()),
        alternatives=_alternatives(reference, some),
        readings=_readings(reference, some),
    )


def unit(images: Pixels) -> Floats:
    """Pixels in [0, 1] of grey levels."""
    return images.astype(np.float32) / np.float32(255)


def _error(decoded: Floats, answers: Answers, wanted: Floats) -> float:
    shown = np.clip(levels(decoded, answers) / np.float32(255), 0, 1)
    return float(np.square(shown - wanted).mean(dtype=np.float64))


def _alternatives(reference: Reference, images: Pixels) -> dict[str, float]:
    """Errors by options to pass, the best first, of other ranges, outputs and orders of channels."""
    answers, wanted, errors = reference.answers, unit(images), {}
    for encoder in _encodings(answers):
        decoded = Reference(reference.source, encoder).decode(Reference(reference.source, encoder).encode(images).mean)
        for other in _decodings(encoder):
            words = _words(other, answers)
            if words:
                errors[words] = _error(decoded, other, wanted)
    return dict(sorted(errors.items(), key=lambda item: item[1]))


def _encodings(answers: Answers) -> list[Answers]:
    """The answers with other ranges of images and orders of channels."""
    ranges = dict.fromkeys((answers.range, *RANGES))
    flips = (answers.bgr, not answers.bgr) if answers.channels == 3 else (answers.bgr,)
    layouts = (
        ("flat", "flat-nhwc") if answers.channels == 3 and answers.layout.startswith("flat") else (answers.layout,)
    )
    return [
        replace(answers, range=values, bgr=bgr, layout=layout)
        for values, bgr, layout in product(ranges, flips, layouts)
    ]


def _decodings(answers: Answers) -> list[Answers]:
    """The answers with other outputs; probabilities are shown as an image in 0,1 is."""
    ranges = dict.fromkeys((answers.output_range, *RANGES))
    return [replace(answers, output="logits"), *(replace(answers, output="image", output_range=r) for r in ranges)]


def _words(other: Answers, answers: Answers) -> str:
    """What to pass for other answers; nothing if they are the same."""
    is_same_output = (other.output, other.output_range) == _shown(answers)
    parts = [
        f"--range {other.range}" if other.range != answers.range else "",
        f"--layout {other.layout}" if other.layout != answers.layout else "",
        ("--bgr" if other.bgr else "--no-bgr") if other.bgr != answers.bgr else "",
        "" if is_same_output or (other.output == answers.output == "logits") else _output_words(other),
    ]
    return " ".join(part for part in parts if part)


def _shown(answers: Answers) -> tuple[str, object]:
    return ("image", RANGES[0]) if answers.output == "probabilities" else (answers.output, answers.output_range)


def _output_words(answers: Answers) -> str:
    of_image = f" --output-range {answers.output_range}" if answers.output == "image" else ""
    return f"--output {answers.output}{of_image}"


def _readings(reference: Reference, images: Pixels) -> dict[str, Reading]:
    """The answer's reading of the spread, and then the other that it may be mistaken for."""
    if reference.answers.spread is None:
        return {}
    own = reference.answers.posterior
    kinds: tuple[Posterior, ...] = (own, TWINS[own])
    return {kind: _reading(reference, replace(reference.answers, posterior=kind), images) for kind in kinds}


def _reading(reference: Reference, answers: Answers, images: Pixels) -> Reading:
    """What one draw an image tells."""
    posterior = Reference(reference.source, answers).encode(images)
    decoded = reference.decode(posterior.draw(seed=0))
    error = _error(decoded, answers, unit(images))
    if answers.output == "image":
        return Reading(error, None)
    shown = np.clip(levels(decoded, answers) / np.float32(255), EDGE, np.float32(1) - EDGE)
    logits = np.log(shown / (np.float32(1) - shown)).reshape(len(images), -1)
    reconstruction = cross_entropy(logits, unit(images).reshape(len(images), -1)).mean()
    return Reading(error, float(reconstruction + posterior.kl().sum() / len(images)))
