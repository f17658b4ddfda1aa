"""The check that a source's own forward pass is its decoder run on its encoder's means."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from app.maths.gaussian import Floats
from app.maths.likelihood import Pixels
from training.errors import ImportRefused
from training.importing.checks.reference import Reference, to_levels
from training.importing.options import RANGES, Answers

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
    def differs(self) -> bool:
        """Whether the forward pass gives other images."""
        return self.levels is not None and self.levels > MAX_LEVELS

    def __str__(self) -> str:
        if self.levels is None:
            return f"not compared: {self.reason}"
        return f"differs by up to {self.levels:.1f} gray levels" if self.differs else "the same images"


def check_forward(reference: Reference, images: Pixels) -> ForwardCheck | None:
    """Run the source's forward pass on some images uint8 `[N, C, H, W]`; None if it has none."""
    forward, some = reference.source.forward, images[:MAX_IMAGES]
    if forward is None:
        return None
    if forward.run is None:
        return ForwardCheck(None, forward.reason, forward.family)
    own = reference.decode(reference.encode(some).mean)
    given = reference.to_source(some)
    outputs = [array for array in forward.run(given) if array.dtype.kind == "f" and array.shape[:1] == (len(some),)]
    differences = [
        _difference(planes, own, answers)
        for planes in _find_planes(reference, [array for array in outputs if not _are_equal(array, given)])
        for answers in _shown_as(reference.answers)
    ]
    if not differences:
        return ForwardCheck(None, "it returns no images", forward.family)
    return ForwardCheck(min(differences), "", forward.family)


def _are_equal(array: Floats, images: Floats) -> bool:
    return array.size == images.size and np.array_equal(array.ravel(), images.ravel())


def _find_planes(reference: Reference, outputs: list[Floats]) -> Iterator[Floats]:
    """The outputs that are images, as planes `[N, C, H, W]`."""
    for output in outputs:
        try:
            yield reference.to_planes(output)
        except ImportRefused:
            continue


def _shown_as(answers: Answers) -> list[tuple[Answers, Answers]]:
    """How the decoder's and the forward pass's output are shown: only one of them may end in a sigmoid."""
    logits = replace(answers, output="logits")
    gray = replace(answers, output="image", output_range=RANGES[0])
    return [(answers, answers), (gray, logits), (logits, gray)]


def _difference(planes: Floats, own: Floats, shown_as: tuple[Answers, Answers]) -> float:
    """Largest difference in gray levels. The forward pass may clamp its images to black and white."""
    levels, expected = to_levels(planes, shown_as[1]), to_levels(own, shown_as[0])
    if levels.min() >= 0 and levels.max() <= 255:
        expected = np.clip(expected, 0, 255)
    difference = float(np.abs(levels - expected).max())
    return difference if np.isfinite(difference) else np.inf
