"""Try other answers on some of the samples: if one gives much better reconstructions, the given answer is wrong."""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from app.maths.gaussian import Floats
from app.maths.likelihood import Pixels, cross_entropy
from training.importing.checks.reference import Reference, to_levels
from training.importing.checks.samples import choose
from training.importing.options import MEAN, RANGES, STD, Answers, Layout, PixelRange, PosteriorKind, range_of

MAX_IMAGES = 64
"""Maximum number of images that other answers are tried with."""
WRONG_RATIO = 1.5
"""An answer counts as wrong if both its error and the mean image's exceed another answer's error by this factor."""
MIN_NATS, MIN_SHARE = 1.0, 0.01
"""Another kind of spread is reported if it lowers the negative ELBO by this many nats and by this share."""
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
class Comparison:
    """The given answers and others on the same images. Errors are mean squared errors of pixels in [0, 1]."""

    images: int
    """Number of images."""
    error: float
    """Error of the given answers."""
    mean_image_error: float
    """Error of the mean image in place of each reconstruction."""
    alternatives: dict[str, float]
    """Errors of other answers, by the options to pass for them, in ascending order."""
    spread_trials: dict[str, SpreadTrial]
    """Trials by kind of spread, the given kind first; empty without a spread."""

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


def compare_answers(reference: Reference, images: Pixels, mean_image: Floats, max_images: int) -> Comparison:
    """Try the given answers and others on the same images, chosen at random from all of uint8 `[N, C, H, W]`.

    `mean_image` is the mean of all images, pixels in [0, 1].
    """
    some = choose(images, min(MAX_IMAGES, max_images))
    decoded = reference.decode(reference.encode(some).mean)
    return Comparison(
        images=len(some),
        error=squared_error(decoded, reference.answers, unit(some)),
        mean_image_error=float(np.square(unit(some) - mean_image).mean(dtype=np.float64)),
        alternatives=_try_alternatives(reference, some),
        spread_trials=_try_spreads(reference, some),
    )


def unit(images: Pixels) -> Floats:
    """Pixels in [0, 1]."""
    return images.astype(np.float32) / np.float32(255)


def squared_error(decoded: Floats, answers: Answers, expected: Floats) -> float:
    """Mean squared error of the decoder's planes, shown as pixels in [0, 1]."""
    shown = np.clip(to_levels(decoded, answers) / np.float32(255), 0, 1)
    return float(np.square(shown - expected).mean(dtype=np.float64))


def _try_alternatives(reference: Reference, images: Pixels) -> dict[str, float]:
    """Errors of other ranges, outputs, layouts and channel orders, by the options to pass, ascending."""
    expected, errors = unit(images), {}
    for encoder_answers in _other_inputs(reference.answers):
        other = Reference(reference.source, encoder_answers)
        decoded = other.decode(other.encode(images).mean)
        for answers in _other_outputs(encoder_answers):
            options = _options_text(answers, reference.answers)
            if options:
                errors[options] = squared_error(decoded, answers, expected)
    return dict(sorted(errors.items(), key=lambda item: item[1]))


def _other_inputs(answers: Answers) -> list[Answers]:
    """The answers with every range and channel order, and with both flat layouts of color images."""
    is_color = answers.channels == 3
    orders = (answers.bgr, not answers.bgr) if is_color else (answers.bgr,)
    layouts: tuple[Layout, ...] = (
        ("flat", "flat-nhwc") if is_color and answers.layout.startswith("flat") else (answers.layout,)
    )
    return [
        replace(answers, range=pixel_range, bgr=bgr, layout=layout)
        for bgr, layout in product(orders, layouts)
        for pixel_range in dict.fromkeys((answers.range, *RANGES, *([_imagenet(bgr)] if is_color else [])))
    ]


def _imagenet(bgr: bool) -> PixelRange:
    """The range of images normalized as ImageNet's, in the model's order of channels."""
    return range_of(MEAN[::-1], STD[::-1]) if bgr else range_of(MEAN, STD)


def _other_outputs(answers: Answers) -> list[Answers]:
    """The answers with every kind of output. Probabilities are left out: they look like an image of range 0,1."""
    ranges = dict.fromkeys((answers.output_range, answers.range, *RANGES))
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
    error = squared_error(decoded, answers, unit(images))
    if answers.output == "image":
        return SpreadTrial(error, None)
    shown = np.clip(to_levels(decoded, answers) / np.float32(255), EPSILON, np.float32(1) - EPSILON)
    logits = np.log(shown / (np.float32(1) - shown)).reshape(len(images), -1)
    reconstruction = cross_entropy(logits, unit(images).reshape(len(images), -1)).mean()
    return SpreadTrial(error, float(reconstruction + posterior.kl().sum() / len(images)))
