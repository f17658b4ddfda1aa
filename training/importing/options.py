"""What a graph does not say: the options of an import, as they were passed, and as they are settled."""

from dataclasses import dataclass
from typing import Literal, get_args

from training.errors import ImportRefused

Layout = Literal["nchw", "nhwc", "nhw", "flat", "flat-nhwc"]
Posterior = Literal["log-variance", "log-std", "variance", "std", "none"]
Output = Literal["image", "logits", "probabilities"]
Prior = Literal["standard-normal", "none"]
Binarization = Literal["dynamic", "static", "none"]

ANY = "any"


@dataclass(frozen=True)
class Range:
    """The values that black and white have for the foreign net."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g},{self.high:g}"


RANGES = (Range(0, 1), Range(-1, 1), Range(0, 255))
"""The usual ones."""


@dataclass(frozen=True)
class Options:
    """Each is None where it was not passed; the names are those of the command's options."""

    image: tuple[int, int | None, int | None] | None = None
    """Channels, height and width; None of the two where any size will do."""
    layout: Layout | None = None
    bgr: bool | None = None
    range: Range | None = None
    picture: str | None = None
    """Name of the decoder's output that is the picture."""
    output: Output | None = None
    output_range: Range | None = None
    posterior: Posterior | None = None
    heads: tuple[str, ...] | None = None
    """Names of the encoder's outputs: the mean and the spread, or the one that is both or the mean alone."""
    clip: tuple[float, float] | None = None
    """Bounds that the source itself clips its log-variance to."""
    prior: Prior | None = None
    scaling_factor: float | None = None
    shift_factor: float | None = None


@dataclass(frozen=True)
class Answers:
    """All of it, settled."""

    channels: int
    height: int | None
    width: int | None
    layout: Layout
    bgr: bool
    range: Range
    picture: int
    """Which output of the decoder is the picture."""
    output: Output
    output_range: Range
    """Of an `image`; logits and probabilities have none."""
    posterior: Posterior
    mean: int
    """Which output of the encoder is the mean."""
    spread: int | None
    """Which is the posterior's spread; the same as `mean` where one tensor holds both, None where there is none."""
    clip: tuple[float, float] | None
    prior: Prior
    scaling_factor: float
    shift_factor: float

    @property
    def is_split(self) -> bool:
        """Whether one tensor of moments holds mean and spread, one after the other along its channels."""
        return self.spread == self.mean


def read_range(text: str) -> Range:
    """`-1,1` as a range.

    Raises:
        ImportRefused: not two numbers of which the second is larger.
    """
    try:
        low, high = map(float, text.strip("[]()").split(","))
    except ValueError:
        raise ImportRefused("a range is written as two numbers: 0,1 or -1,1 or 0,255") from None
    if not -1e6 < low < high < 1e6:
        raise ImportRefused("a range goes from black to a larger white, such as 0,1 or -1,1 or 0,255")
    return Range(low, high)


def read_image(text: str) -> tuple[int, int | None, int | None]:
    """`3x64x64` or `3xanyxany` as channels, height and width.

    Raises:
        ImportRefused: not of that form.
    """
    parts = text.lower().split("x")
    sizes = [None if part == ANY else int(part) if part.isdecimal() else 0 for part in parts]
    is_valid = len(sizes) == 3 and sizes[0] in (1, 3) and 0 not in sizes and (sizes[1] is None) == (sizes[2] is None)
    if not is_valid:
        raise ImportRefused("an image is written as channels x height x width, such as 1x28x28, 3x64x64 or 3xanyxany")
    channels, height, width = sizes
    assert channels is not None
    return channels, height, width


def choices(kind: object) -> list[str]:
    """The values of one of the literals above."""
    return list(get_args(kind))
