"""A foreign model after reading: two ONNX graphs, a way to run each in its own framework, and the known options."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from training.importing.options import ImportOptions

Arrays = list[NDArray[Any]]
RunGraph = Callable[[NDArray[Any]], Arrays]
"""Runs a graph on a batch `[N, ...]` of any size N, and returns one array for each output of the graph."""
Shape = tuple[int | None, ...]

DTYPES: dict[int, np.dtype[Any]] = {
    onnx.TensorProto.FLOAT: np.dtype(np.float32),
    onnx.TensorProto.FLOAT16: np.dtype(np.float16),
    onnx.TensorProto.DOUBLE: np.dtype(np.float64),
    onnx.TensorProto.UINT8: np.dtype(np.uint8),
}
"""Element types that images and latents may have."""
SAVE_WEIGHTS = (
    "torch.save(torch.load({!r}, map_location='cpu', weights_only=False).state_dict(), 'weights.pt'). If it holds a "
    "checkpoint, which is a dict, take its entry that has the weights, such as ['state_dict'], instead of .state_dict()"
)
"""Python that saves the weights of a pickle alone, for messages."""


@dataclass(frozen=True)
class SourceGraph:
    """The encoder or the decoder of a foreign model."""

    name: str
    """Its name in messages: its file, or `the encoder`."""
    model: onnx.ModelProto
    """A model with one input, whose batch size is dynamic."""
    run: RunGraph
    """Runs the graph in its own framework. The arrays have the order of the outputs of `model`."""

    @property
    def input(self) -> Shape:
        """Shape of the input."""
        return shape_of(self.model.graph.input[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the input."""
        return DTYPES[self.model.graph.input[0].type.tensor_type.elem_type]

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs."""
        return [output.name for output in self.model.graph.output]


@dataclass(frozen=True)
class Forward:
    """The forward pass of a whole model."""

    run: RunGraph | None
    """Returns every tensor that the forward pass gives for images as the encoder takes them, with normal draws replaced
    by their means, or raises ImportRefused if it fails. None if it cannot be compared."""
    reason: str
    """Why it cannot be compared."""
    family: str | None
    """The kind of model that the names of its parts show, if a bundle cannot represent it."""


@dataclass(frozen=True)
class Source:
    """Both graphs of a foreign model."""

    encoder: SourceGraph
    decoder: SourceGraph
    kind: str
    """Description of the source on the card."""
    known: ImportOptions = field(default_factory=ImportOptions)
    """Options given by the source's own files. Options that are passed take precedence."""
    forward: Forward | None = None
    """The model's own forward pass, if it has one."""
    notes: tuple[str, ...] = ()
    """What a bundle leaves out of this model: warnings."""


def shape_of(value: onnx.ValueInfoProto) -> Shape:
    """Shape of a tensor; None for a dynamic size."""
    sizes = value.type.tensor_type.shape.dim
    return tuple(size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else None for size in sizes)


def shape_text(shape: Shape) -> str:
    """`[N, 3, ?, ?]`: a shape in a message; the first size is the batch size."""
    return f"[{', '.join(['N', *('?' if size is None else str(size) for size in shape[1:])])}]"


def file_name(path: Path) -> str:
    """Name of a file in messages, with its folder if the file is called `model`."""
    return f"{path.parent.name}/{path.name}" if path.name.startswith("model.") else path.name
