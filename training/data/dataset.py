"""A data set in memory, as splits of uint8 images, and the options that all kinds of data sets share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from training.data.subjects import subject_of

SIDE = 4
"""Images are squares whose sides are multiples of this many pixels: the nets halve them twice."""

LOCK = ".lock"
"""Name of a data set's lock file, locked by the process that downloads. It is never removed."""

BLACK = "#000000"
"""Default background of transparent pixels, as manifests write colors."""


def _is_below(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts or path != "/".join(parts) or not path.isprintable():
        raise ValueError("write a plain path below the data directory, such as faces/aligned")
    return path


RelativePath = Annotated[str, AfterValidator(_is_below)]
"""Path of a file or folder below the data directory. Only one spelling is valid, because the path names the data set in
manifests."""

Fraction = Annotated[float, Field(gt=0, lt=1)]


def is_within(digest: bytes, fraction: float) -> bool:
    """Whether the first 8 bytes of a hash, read as a number in [0, 1), are below `fraction`."""
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


@dataclass(frozen=True)
class Split:
    """Images uint8 `[N, C, H, W]` and their labels uint8 `[N]`, or None without labels."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None
    classes: tuple[str, ...] = ()
    """Names of the labels 0, 1, ..., if the data set has them."""
    attributes: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """Further labels by name, one row per image: names, str `[N]`, or numbers, float32 `[N]` or `[N, K]`."""

    def __getitem__(self, rows: slice) -> "Split":
        attributes = {name: values[rows] for name, values in self.attributes.items()}
        return Split(self.images[rows], None if self.labels is None else self.labels[rows], self.classes, attributes)


@dataclass(frozen=True)
class Dataset:
    """The splits of a data set. `validation` is empty unless the recipe asks for it."""

    train: Split
    validation: Split
    test: Split

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


class DatasetOptions(BaseModel):
    """Options of every kind of data set."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
    validation: Annotated[int, Field(ge=0)] = 0
    """Number of images moved from the end of the training split to the validation split, whose loss is measured after
    every epoch. Early stopping needs it."""
    dataset: str

    @property
    def key(self) -> str:
        """Name of the data set in manifests."""
        return self.dataset

    @property
    def title(self) -> str:
        """Name of the data set on cards."""
        return subject_of(self.key).title
