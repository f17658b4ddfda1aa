"""The check that a source's own forward pass is its decoder run on its encoder's means."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.maths.gaussian import Floats
from app.maths.likelihood import Pixels
from training.errors import ImportRefused
from training.importing.checks.reference import Reference, to_levels
from training.importing.options import RANGES, Answers
from training.importing.source import Arrays, Forward

MAX_IMAGES = 8
MAX_LEVELS = 0.05
"""Maximum difference in gray levels: both compute the same, with rounding errors of their own."""


@dataclass(frozen=True)
class ForwardCheck:
    """The source's forward pass compared with its encoder and decoder."""

    levels: float | None
    """Largest difference of a pixel, in gray levels; None if they were not compared."""
    reason: str
    """Why they were not compared."""
    family: str | None
    """The kind of model that the names of its parts show, if a bundle cannot represent it."""

    @property
    def is_same(self) -> bool:
        """Whether the forward pass gives the same images."""
        return self.levels is not None and self.levels <= MAX_LEVELS

    @property
    def differs(self) -> bool:
        """Whether the forward pass gives other images."""
        return self.levels is not None and not self.is_same

    def __str__(self) -> str:
        if self.levels is None:
            return f"not compared: {self.reason}"
        return f"differs by up to {self.levels:.1f} gray levels" if self.differs else "the same images"


def check_forward(reference: Reference, images: Pixels) -> ForwardCheck | None:
    """Run the source's forward pass on some images uint8 `[N, C, H, W]`; None if it has none.

    It may take and return pixels of another usual range than encoder and decoder: it then converts them itself.
    """
    forward, some = reference.source.forward, images[:MAX_IMAGES]
    if forward is None:
        return None
    if forward.run is None:
        return ForwardCheck(None, forward.reason, forward.family)
    own, first = reference.decode(reference.encode(some).mean), None
    for pixel_range in dict.fromkeys((reference.answers.range, *RANGES)):
        given = replace(reference, answers=replace(reference.answers, range=pixel_range)).to_source(some)
        check = _compare(reference, forward, given, own)
        if check.is_same:
            return check
        first = first or check
    return first


def _compare(reference: Reference, forward: Forward, given: NDArray[Any], own: Floats) -> ForwardCheck:
    """Compare what the forward pass makes of images `given` with the decoder's planes `[N, C, H, W]`."""
    assert forward.run is not None
    try:
        parts = [forward.run(rows) for rows in reference.portions(given)]
    except ImportRefused as error:
        return ForwardCheck(None, str(error), forward.family)
    inputs = reference.to_planes(given)
    differences = [
        _difference(planes, own, answers)
        for planes in _find_planes(reference, parts)
        if planes.shape == own.shape and not np.array_equal(planes, inputs)
        for answers in _shown_as(reference.answers)
    ]
    if not differences:
        return ForwardCheck(None, "it returns no images", forward.family)
    return ForwardCheck(min(differences), "", forward.family)


def _find_planes(reference: Reference, parts: list[Arrays]) -> Iterator[Floats]:
    """The outputs that are images, as planes `[N, C, H, W]`; `parts` has the outputs for each portion of the images."""
    for outputs in zip(*parts, strict=False):
        try:
            yield np.concatenate([reference.to_planes(output) for output in outputs if output.dtype.kind == "f"])
        except (ImportRefused, ValueError):  # sizes differ, or none is of floats
            continue


def _shown_as(answers: Answers) -> list[tuple[Answers, Answers]]:
    """How the decoder's and the forward pass's output are shown: only one of them may end in a sigmoid."""
    logits = replace(answers, output="logits")
    ranges = [replace(answers, output="image", output_range=known) for known in RANGES]
    return [*((answers, other) for other in (answers, *ranges)), (ranges[0], logits), (logits, ranges[0])]


def _difference(planes: Floats, own: Floats, shown_as: tuple[Answers, Answers]) -> float:
    """Largest difference in gray levels. The forward pass may clamp its images to black and white."""
    levels, expected = to_levels(planes, shown_as[1]), to_levels(own, shown_as[0])
    if levels.min() >= 0 and levels.max() <= 255:
        expected = np.clip(expected, 0, 255)
    difference = float(np.abs(levels - expected).max())
    return difference if np.isfinite(difference) else np.inf
