"""What may be chosen of a reduction."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from app.bundle.manifest import Provider
from training.errors import ReductionRefused

Precision = Literal["fp16-stored", "fp16", "int8"]
Half = Literal["encoder", "decoder"]

PROVIDERS: dict[Precision, Provider] = {"fp16-stored": "any", "fp16": "cuda", "int8": "cpu"}
"""What each is for."""


@dataclass(frozen=True)
class Options:
    """What may be chosen."""

    precision: Precision
    only: Half | None = None
    """The graph to reduce; both, if None."""
    bound_nats: float = 0.1
    bound_psnr: float = 0.1
    faster: float = 1.2
    """How many times as fast int8 must be, alone and together. On a busy machine the same graphs came out 1.1 times as
    fast as themselves."""
    images: Path | None = None
    """A folder of pictures, an npz or an IDX file; the bundle's data set, if None."""
    count: int = 2000
    """Held-out images, at most."""
    seed: int = 0
    version: int | None = None
    """The next that is free, if None."""
    replace: bool = False
    """Whether the version may be there."""

    @classmethod
    def of(cls, precision: str, only: str | None, **others: Any) -> "Options":
        """As they were typed.

        Raises:
            ReductionRefused: a precision or a graph that there is not.
        """
        if precision not in PROVIDERS:
            raise ReductionRefused(f"--precision is one of {', '.join(PROVIDERS)}")
        if only not in (None, *get_args(Half)):
            raise ReductionRefused(f"--only is one of {', '.join(get_args(Half))}")
        if only is not None and precision == "fp16-stored":
            raise ReductionRefused("--only goes with fp16 and int8, whose graphs lie beside the others")
        return cls(precision=precision, only=only, **others)  # type: ignore[arg-type]
