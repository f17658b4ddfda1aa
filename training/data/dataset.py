"""What every data set is once it is read: uint8 images in two splits, and the options that all kinds share."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

SIDE = 4
"""Images are squares whose side is a multiple of this: the nets halve it twice."""

LOCK = ".lock"
"""Name of the file in a data set's folder that the downloading process has locked. It stays."""

BLACK = "#000000"
"""What is under transparent pixels, unless a kind of data set says otherwise; as manifests write colours."""


def _is_below(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts or path != "/".join(parts) or not path.isprintable():
        raise ValueError("write a plain path below the data directory, such as faces/aligned")
    return path


RelativePath = Annotated[str, AfterValidator(_is_below)]
"""Of a file or folder below the data directory, in one spelling only: it names the data set in manifests."""

Fraction = Annotated[float, Field(gt=0, lt=1)]


def is_within(digest: bytes, fraction: float) -> bool:
    """Whether a hash, its first 8 bytes taken as a number in [0, 1), is below `fraction`."""
    return int.from_bytes(digest[:8], "big") < fraction * 2**64


@dataclass(frozen=True)
class Split:
    """Images uint8 `[N, C, H, W]` and their labels uint8 `[N]`, or None where there are none."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None
    classes: tuple[str, ...] = ()
    """What the data itself calls the labels 0, 1, ..., if it does."""

    def __getitem__(self, rows: slice) -> "Split":
        return Split(self.images[rows], None if self.labels is None else self.labels[rows], self.classes)


@dataclass(frozen=True)
class Dataset:
    """The splits of a data set. `validation` is empty unless the recipe sets training images aside."""

    train: Split
    validation: Split
    test: Split

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


class DatasetOptions(BaseModel):
    """What every kind of data set can be asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
    validation: Annotated[int, Field(ge=0)] = 0
    """The last so many training images are set aside: not trained on, but watched, by early stopping above all."""
