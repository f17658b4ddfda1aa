"""Facts that the graphs of a foreign model do not state: as options, which may be missing, and as complete answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.bundle.manifest import Resampling as Resampling
from training.errors import ImportRefused

Layout = Literal["nchw", "nhwc", "nhw", "flat", "flat-nhwc"]
PosteriorKind = Literal["log-variance", "log-std", "variance", "std", "none"]
Output = Literal["image", "logits", "probabilities"]
Prior = Literal["standard-normal", "none"]
Binarization = Literal["dynamic", "static", "none"]
ImageShape = tuple[int, int | None, int | None]
"""Channels, height and width. Height and width are None if the model takes images of any size."""


PerChannel = float | tuple[float, ...]
"""A number, or one per channel."""


@dataclass(frozen=True)
class PixelRange:
    """The values of black and white in the foreign model: numbers, or one per channel in the model's order."""

    low: PerChannel
    high: PerChannel

    def __str__(self) -> str:
        return "/".join(f"{low:g},{high:g}" for low, high in zip(*map(each, (self.low, self.high)), strict=True))


def each(value: PerChannel) -> tuple[float, ...]:
    """The numbers of all channels, or the only one."""
    return value if isinstance(value, tuple) else (value,)


RANGES = (PixelRange(0, 1), PixelRange(-1, 1), PixelRange(0, 255))
"""The usual ranges."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's channels, which many models normalize color images with."""


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
    """A torch model given as a class and its weights."""

    path: str
    """`package.module:Class`, or any callable there that returns a module."""
    arguments: Sequence[str] = ()
    """Each is `name=value`. The value is parsed as JSON; if that fails, it is a string."""
    weights: Sequence[Path] = ()
    """One file, or one for each part of the model."""
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
    scaling_factor: PerChannel | None = None
    shift_factor: PerChannel | None = None
    resampling: Resampling | None = None


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
    scaling_factor: PerChannel
    shift_factor: PerChannel
    resampling: Resampling

    @property
    def is_split(self) -> bool:
        """Whether one tensor holds the mean and the spread, one after the other along its channels."""
        return self.spread == self.mean


def parse_range(text: str) -> PixelRange:
    """Parse `-1,1`, or one such pair per channel, separated by `/`.

    Raises:
        ImportRefused: not two numbers of which the second is larger.
    """
    try:
        pairs = [(float(low), float(high)) for low, high in (pair.strip("[]()").split(",") for pair in text.split("/"))]
    except ValueError:
        raise ImportRefused("a range is written as two numbers: 0,1 or -1,1 or 0,255") from None
    if not all(-1e6 < low < high < 1e6 for low, high in pairs):
        raise ImportRefused("a range goes from black to a larger white, such as 0,1 or -1,1 or 0,255")
    return PixelRange(*pairs[0]) if len(pairs) == 1 else PixelRange(*zip(*pairs, strict=True))


def parse_numbers(text: str) -> PerChannel:
    """Parse a number, or numbers with commas between them.

    Raises:
        ImportRefused: another text, or a number that is not finite.
    """
    try:
        numbers = tuple(float(part) for part in text.strip("[]()").split(","))
    except ValueError:
        raise ImportRefused("one number is expected, or one per channel with commas between them") from None
    if not all(map(math.isfinite, numbers)):
        raise ImportRefused("numbers must be finite")
    return numbers[0] if len(numbers) == 1 else numbers


def range_of(mean: PerChannel, std: PerChannel) -> PixelRange:
    """The range of images that are normalized as (x - mean) / std, where x is from 0 to 1.

    Raises:
        ImportRefused: a mean is not from 0 to 1, a standard deviation is not positive, or their numbers differ.
    """
    means, stds = each(mean), each(std)
    if not all(0 <= value <= 1 for value in means) or not all(1e-6 < value < 1e6 for value in stds):
        raise ImportRefused("--mean and --std are those of pixels from 0 to 1: divide those of 0 to 255 by 255")
    if 1 not in (len(means), len(stds)) and len(means) != len(stds):
        raise ImportRefused("--mean and --std have different numbers of channels")
    count = max(len(means), len(stds))
    pairs = zip(means * (count // len(means)), stds * (count // len(stds)), strict=True)
    low, high = zip(*(((0 - m) / s, (1 - m) / s) for m, s in pairs), strict=True)
    return PixelRange(low[0], high[0]) if count == 1 else PixelRange(low, high)


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
