"""Facts that the graphs of a foreign model do not state: as options, which may be missing, and as complete answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.errors import ImportRefused

Layout = Literal["nchw", "nhwc", "nhw", "flat", "flat-nhwc"]
PosteriorKind = Literal["log-variance", "log-std", "variance", "std", "none"]
Output = Literal["image", "logits", "probabilities"]
Prior = Literal["standard-normal", "none"]
Binarization = Literal["dynamic", "static", "none"]
ImageShape = tuple[int, int | None, int | None]
"""Channels, height and width. Height and width are None if the model takes images of any size."""


@dataclass(frozen=True)
class PixelRange:
    """The values of black and white in the foreign model."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g},{self.high:g}"


RANGES = (PixelRange(0, 1), PixelRange(-1, 1), PixelRange(0, 255))
"""The usual ranges."""


@dataclass(frozen=True)
class BundleInfo:
    """Directory and name of the new bundle, and facts about the model that only the user can give."""

    directory: Path
    name: str
    version: int
    description: str
    license: str
    dataset: str
    binarization: Binarization


@dataclass(frozen=True)
class TorchClass:
    """A torch model given as a class and a file of weights."""

    path: str
    """`package.module:Class`, or any callable there that returns a module."""
    arguments: Sequence[str] = ()
    """Each is `name=value`. The value is parsed as JSON; if that fails, it is a string."""
    weights: Path | None = None
    encoder: str | None = None
    """Method or submodule that encodes; `encode` or `encoder` if None."""
    decoder: str | None = None
    """Method or submodule that decodes; `decode` or `decoder` if None."""


@dataclass(frozen=True)
class ImportOptions:
    """Options of an import, named like the options of the command. None means not given."""

    image: ImageShape | None = None
    layout: Layout | None = None
    bgr: bool | None = None
    range: PixelRange | None = None
    picture: str | None = None
    """Name of the decoder's output that is the image."""
    output: Output | None = None
    output_range: PixelRange | None = None
    posterior: PosteriorKind | None = None
    heads: tuple[str, ...] | None = None
    """Names of the encoder's outputs: mean and spread, or one output that is both or the mean alone."""
    clip: tuple[float, float] | None = None
    """Bounds that the source clips its log-variance to. diffusers' files imply them; no option sets them."""
    prior: Prior | None = None
    scaling_factor: float | None = None
    shift_factor: float | None = None


@dataclass(frozen=True)
class Answers:
    """All facts about a foreign model that its graphs do not state."""

    channels: int
    height: int | None
    width: int | None
    layout: Layout
    bgr: bool
    range: PixelRange
    image_output: int
    """Index of the decoder's output that is the image."""
    output: Output
    output_range: PixelRange
    """Range of an `image`; meaningless for logits and probabilities."""
    posterior: PosteriorKind
    mean: int
    """Index of the encoder's output that is the mean."""
    spread: int | None
    """Index of the output that is the spread; equal to `mean` if one tensor holds both, None without a posterior."""
    clip: tuple[float, float] | None
    prior: Prior
    scaling_factor: float
    shift_factor: float

    @property
    def is_split(self) -> bool:
        """Whether one tensor holds the mean and the spread, one after the other along its channels."""
        return self.spread == self.mean


def parse_range(text: str) -> PixelRange:
    """Parse `-1,1`.

    Raises:
        ImportRefused: not two numbers of which the second is larger.
    """
    try:
        low, high = map(float, text.strip("[]()").split(","))
    except ValueError:
        raise ImportRefused("a range is written as two numbers: 0,1 or -1,1 or 0,255") from None
    if not -1e6 < low < high < 1e6:
        raise ImportRefused("a range goes from black to a larger white, such as 0,1 or -1,1 or 0,255")
    return PixelRange(low, high)


def parse_image(text: str) -> ImageShape:
    """Parse `3x64x64` or `3xanyxany`.

    Raises:
        ImportRefused: not of that form, or neither 1 nor 3 channels.
    """
    sizes = [None if part == "any" else int(part) if part.isdecimal() else 0 for part in text.lower().split("x")]
    is_valid = len(sizes) == 3 and sizes[0] in (1, 3) and 0 not in sizes and (sizes[1] is None) == (sizes[2] is None)
    if not is_valid:
        raise ImportRefused("an image is written as channels x height x width, such as 1x28x28, 3x64x64 or 3xanyxany")
    channels, height, width = sizes
    assert channels is not None
    return channels, height, width


def parse_heads(text: str) -> tuple[str, ...]:
    """Parse `mean,spread` or `mean`.

    Raises:
        ImportRefused: more than two names.
    """
    names = tuple(text.split(","))
    if len(names) > 2:
        raise ImportRefused("--heads names one output or two: mean,spread")
    return names
