"""A foreign model as it was read: two ONNX graphs, how its own framework runs them, and what is known about it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Arrays = list[NDArray[Any]]
Run = Callable[[NDArray[Any]], Arrays]
Shape = tuple[int | None, ...]

TYPES: dict[int, np.dtype[Any]] = {
    onnx.TensorProto.FLOAT: np.dtype(np.float32),
    onnx.TensorProto.FLOAT16: np.dtype(np.float16),
    onnx.TensorProto.DOUBLE: np.dtype(np.float64),
    onnx.TensorProto.UINT8: np.dtype(np.uint8),
}
"""Element types that images and latents may have."""


@dataclass(frozen=True)
class Half:
    """The encoder or the decoder."""

    name: str
    """What messages call it: its file, or `the encoder`."""
    model: onnx.ModelProto
    """Has one input, whose batch is free."""
    run: Run
    """What the source itself makes of a batch: one array an output of `model`, in their order."""

    @property
    def input(self) -> Shape:
        """Shape of the one input; None where it is variable."""
        return shape_of(self.model.graph.input[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the input's elements."""
        return TYPES[self.model.graph.input[0].type.tensor_type.elem_type]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [output.name for output in self.model.graph.output]


@dataclass(frozen=True)
class Source:
    """Both halves, and what the source's own files say about them: names of options and their values."""

    encoder: Half
    decoder: Half
    kind: str
    """What the card says that it was."""
    known: dict[str, Any] = field(default_factory=dict)
    """Values of `Options` that need no asking; an option that is passed goes before."""


def shape_of(value: onnx.ValueInfoProto) -> Shape:
    """Shape of a tensor; None where a size is variable."""
    sizes = value.type.tensor_type.shape.dim
    return tuple(size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None for size in sizes)


def file_name(path: Path) -> str:
    """What messages call a file: its name, with its folder where that tells more."""
    return f"{path.parent.name}/{path.name}" if path.name.startswith("model.") else path.name
