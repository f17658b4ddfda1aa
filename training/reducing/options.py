"""The options of a reduction."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from training.errors import ReductionRefused

Precision = Literal["fp16-stored", "fp16", "int8"]
GraphName = Literal["encoder", "decoder"]

PROVIDERS: dict[Precision, Literal["any", "cuda", "cpu"]] = {"fp16-stored": "any", "fp16": "cuda", "int8": "cpu"}
"""The execution provider that each precision is for."""


@dataclass(frozen=True)
class ReduceOptions:
    """Options of a reduction. The command has the same ones, and its help describes them.

    Raises:
        ReductionRefused: `only` is set for fp16-stored, whose graphs replace both original ones.
    """

    precision: Precision
    only: GraphName | None = None
    bound_nats: float = 0.1
    bound_psnr: float = 0.1
    faster: float = 1.2
    """Minimum speed-up of int8, for one row and for many. On a busy machine, runs of one graph differed 1.1-fold."""
    images: Path | None = None
    count: int = 2000
    seed: int = 0
    version: int | None = None
    replace: bool = False

    def __post_init__(self) -> None:
        if self.only is not None and self.precision == "fp16-stored":
            raise ReductionRefused("--only needs fp16 or int8, whose graphs are stored beside the original ones")
