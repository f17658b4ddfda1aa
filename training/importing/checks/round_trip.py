"""Encode and decode sample images with the given answers and with others: a wrong answer gives bad reconstructions."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from app.maths import gaussian
from app.maths.gaussian import Floats
from app.maths.likelihood import Pixels, cross_entropy
from training.importing.checks.reference import Reference, to_levels, to_pixels
from training.importing.checks.samples import SampleImages
from training.importing.options import RANGES, Answers, PosteriorKind

MAX_TRIAL_IMAGES = 64
"""Maximum number of images that other answers are tried with. A quarter of all images is used."""
WRONG_RATIO = 1.5
"""An answer counts as wrong if both its error and the mean image's exceed another answer's error by this factor."""
MIN_NATS, MIN_SHARE = 1.0, 0.01
"""Another kind of spread is reported if it lowers the negative ELBO by this many nats and by this share."""
MAX_STD_RATIO, MAX_OFFSET = 2.0, 1.0
"""Latents count as N(0, I) if their standard deviation is within this factor of 1, and their mean this close to 0."""
EPSILON = np.float32(1e-6)
SIMILAR_SPREADS: dict[PosteriorKind, PosteriorKind] = {
    "log-variance": "log-std",
    "log-std": "log-variance",
    "variance": "std",
    "std": "variance",
}
"""The kind of spread that each kind is most easily confused with."""


@dataclass(frozen=True)
class SpreadTrial:
    """Reconstructions from posterior draws, with the spread interpreted in one way."""

    draw_error: float
    """Mean squared error of the decoded draws."""
    negative_elbo: float | None
    """Negative ELBO of gray values, in nats per image; None without a likelihood. A squared error alone does not show
    how much noise the latents were trained to tolerate."""


@dataclass(frozen=True)
class RoundTrip:
    """The reconstructions of the samples, and their errors: mean squared errors of pixels in [0, 1]."""

    samples: SampleImages
    reconstructions: Pixels
    """Gray levels `[N, C, H, W]`."""
    posterior: gaussian.Posterior
    error: float
    mean_image_error: float
    """Error of the mean of all images in place of each reconstruction."""
    alternatives: dict[str, float]
    """Errors of other answers, by the options to pass for them, in ascending order."""
    spread_trials: dict[str, SpreadTrial]
    """Trials by kind of spread, the answer's first; empty without a spread."""

    @property
    def better_options(self) -> str | None:
        """Options whose reconstructions are much better; None if there are none."""
        if not self.alternatives:
            return None
        options, error = next(iter(self.alternatives.items()))
        return options if WRONG_RATIO * error < min(self.error, self.mean_image_error) else None

    @property
    def better_spread(self) -> str | None:
        """The other kind of spread if it explains the images better, else None."""
        if not self.spread_trials:
            return None
        (_, own), (name, other) = self.spread_trials.items()
        if own.negative_elbo is not None and other.negative_elbo is not None:
            min_gain = max(MIN_NATS, MIN_SHARE * abs(own.negative_elbo))
            return name if own.negative_elbo - other.negative_elbo > min_gain else None
        return name if own.draw_error > self.mean_image_error > WRONG_RATIO * other.draw_error else None

    @property
    def std(self) -> float:
        """Standard deviation of posterior draws over all images, averaged over the dimensions."""
        mean, log_std = self.posterior.mean.astype(np.float64), self.posterior.log_std
        within = 0.0 if log_std is None else np.exp(2 * log_std.astype(np.float64)).mean(axis=0)
        return float(np.sqrt(mean.var(axis=0) + within).mean())

    @property
    def offset(self) -> float:
        """Distance of the latents' mean from 0, averaged over the dimensions."""
        return float(np.abs(self.posterior.mean.mean(axis=0, dtype=np.float64)).mean())

    @property
    def follows_prior(self) -> bool:
        """Whether the distribution of the latents is close to N(0, I)."""
        return 1 / MAX_STD_RATIO < self.std < MAX_STD_RATIO and self.offset < MAX_OFFSET

    @property
    def kl(self) -> Floats | None:
        """KL(q(z|x) || N(0, I)) per dimension, in nats, averaged over the images; None without a spread."""
        return None if self.posterior.log_std is None else self.posterior.kl().mean(axis=0)


def measure_round_trip(reference: Reference, samples: SampleImages) -> RoundTrip:
    """Encode and decode the samples with the given answers, and some of the samples with other answers."""
    answers, images = reference.answers, samples.images
    posterior = reference.encode(images)
    decoded = reference.decode(posterior.mean)
    expected = _unit(images)
    some = images[: min(MAX_TRIAL_IMAGES, max(4, len(images) // 4))]
    return RoundTrip(
        samples,
        to_pixels(decoded, answers),
        posterior,
        error=_error(decoded, answers, expected),
        mean_image_error=float(np.square(expected - expected.mean(axis=0)).mean()),
        alternatives=_try_alternatives(reference, some),
        spread_trials=_try_spreads(reference, some),
    )


def _unit(images: Pixels) -> Floats:
    """Pixels in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)


def _error(decoded: Floats, answers: Answers, expected: Floats) -> float:
    shown = np.clip(to_levels(decoded, answers) / np.float32(255), 0, 1)
    return float(np.square(shown - expected).mean(dtype=np.float64))


def _try_alternatives(reference: Reference, images: Pixels) -> dict[str, float]:
    """Errors of other ranges, outputs, layouts and channel orders, by the options to pass, ascending."""
    expected, errors = _unit(images), {}
    for encoder_answers in _other_inputs(reference.answers):
        other = Reference(reference.source, encoder_answers)
        decoded = other.decode(other.encode(images).mean)
        for answers in _other_outputs(encoder_answers):
            options = _options_text(answers, reference.answers)
            if options:
                errors[options] = _error(decoded, answers, expected)
    return dict(sorted(errors.items(), key=lambda item: item[1]))


def _other_inputs(answers: Answers) -> list[Answers]:
    """The answers with every range and channel order, and with both flat layouts of color images."""
    is_color = answers.channels == 3
    ranges = dict.fromkeys((answers.range, *RANGES))
    orders = (answers.bgr, not answers.bgr) if is_color else (answers.bgr,)
    layouts = ("flat", "flat-nhwc") if is_color and answers.layout.startswith("flat") else (answers.layout,)
    return [
        replace(answers, range=pixel_range, bgr=bgr, layout=layout)
        for pixel_range, bgr, layout in product(ranges, orders, layouts)
    ]


def _other_outputs(answers: Answers) -> list[Answers]:
    """The answers with every kind of output. Probabilities are left out: they look like an image of range 0,1."""
    ranges = dict.fromkeys((answers.output_range, *RANGES))
    return [replace(answers, output="logits"), *(replace(answers, output="image", output_range=r) for r in ranges)]


def _options_text(other: Answers, answers: Answers) -> str:
    """The options to pass for other answers; empty if they are equivalent."""
    own_output: tuple[str, object] = (answers.output, answers.output_range)
    if answers.output == "probabilities":
        own_output = ("image", RANGES[0])
    parts = []
    if other.range != answers.range:
        parts.append(f"--range {other.range}")
    if other.layout != answers.layout:
        parts.append(f"--layout {other.layout}")
    if other.bgr != answers.bgr:
        parts.append("--bgr" if other.bgr else "--no-bgr")
    if (other.output, other.output_range) != own_output and not other.output == answers.output == "logits":
        parts.append(f"--output {other.output}")
        parts += [f"--output-range {other.output_range}"] if other.output == "image" else []
    return " ".join(parts)


def _try_spreads(reference: Reference, images: Pixels) -> dict[str, SpreadTrial]:
    """Try the answer's kind of spread, and the kind that it is most easily confused with."""
    own = reference.answers.posterior
    if own == "none":
        return {}
    return {kind: _try_spread(reference, kind, images) for kind in (own, SIMILAR_SPREADS[own])}


def _try_spread(reference: Reference, kind: PosteriorKind, images: Pixels) -> SpreadTrial:
    """Decode one draw per image."""
    answers = replace(reference.answers, posterior=kind)
    posterior = Reference(reference.source, answers).encode(images)
    decoded = reference.decode(posterior.draw(seed=0))
    error = _error(decoded, answers, _unit(images))
    if answers.output == "image":
        return SpreadTrial(error, None)
    shown = np.clip(to_levels(decoded, answers) / np.float32(255), EPSILON, np.float32(1) - EPSILON)
    logits = np.log(shown / (np.float32(1) - shown)).reshape(len(images), -1)
    reconstruction = cross_entropy(logits, _unit(images).reshape(len(images), -1)).mean()
    return SpreadTrial(error, float(reconstruction + posterior.kl().sum() / len(images)))
