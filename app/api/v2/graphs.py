"""A served model as the Open Inference Protocol sees it: its graphs, two models named `{name}.encoder` and
`{name}.decoder`, and their tensors."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Path
from numpy.typing import NDArray

from app.api.routing.problems import documented
from app.api.routing.state import RequestTiming
from app.bundle.manifest import Tensor
from app.codecs.tensors import NAMES
from app.errors import InvalidInput, Overloaded, UnknownModel
from app.inference.graphs import GraphName
from app.vae.catalog import Catalog
from app.vae.vae import Vae

TAG = "inference"

FIND_PROBLEMS = documented(UnknownModel, InvalidInput)
READY_PROBLEMS = documented(Overloaded)

GraphPath = Annotated[
    str, Path(description="A model's name with `.encoder` or `.decoder` behind it.", examples=["mnist-2d.decoder"])
]
VersionPath = Annotated[int, Path(ge=1, description="A version of it.", examples=[1])]

GRAPHS: tuple[GraphName, GraphName] = ("encoder", "decoder")


@dataclass(frozen=True)
class Graph:
    """One graph of a served model."""

    vae: Vae
    kind: GraphName

    @property
    def name(self) -> str:
        """What the protocol calls it."""
        return f"{self.vae.manifest.name}.{self.kind}"

    @property
    def version(self) -> str:
        """Its version; the protocol's are strings."""
        return str(self.vae.manifest.version)

    @property
    def file(self) -> str:
        """Name of its ONNX file."""
        encoder, decoder = self.vae.manifest.graphs_of(self.vae.execution_provider)
        return (encoder if self.kind == "encoder" else decoder).file

    @property
    def input(self) -> str:
        """Name of its one input."""
        return "image" if self.kind == "encoder" else "latent"

    @property
    def most_values(self) -> int | None:
        """Values of a row of its input; None where it may be of any size."""
        if self.vae.geometry.size is None:
            return None
        return math.prod(self.vae.image_shape if self.kind == "encoder" else self.vae.latent_shape)

    def check(self, shape: Sequence[int], pointer: str) -> None:
        """Refuse rows of another shape than `[N, C, H, W]` or `[N, *latent]`.

        Raises:
            InvalidInput: they do not fit; or their images have too many pixels.
        """
        if self.kind == "encoder":
            self.vae.geometry.check_images(shape, pointer, planes=True)
        else:
            self.vae.geometry.check_latents(shape, pointer)
            self.vae.check_pixels(shape[0], shape[1:], pointer)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Its input by name."""
        return self.vae.graphs.tensors(self.kind)[0]

    @property
    def outputs(self) -> dict[str, Tensor]:
        """Its outputs by name."""
        return self.vae.graphs.tensors(self.kind)[1]

    @property
    def usual(self) -> list[str]:
        """The outputs of a request that names none: the likelihood's parameters are asked for by name."""
        return list(self.outputs) if self.kind == "encoder" else ["image"]

    async def run(self, rows: NDArray[Any], outputs: list[str], seconds: float | None) -> dict[str, NDArray[Any]]:
        """Some outputs for rows of its input; `seconds` is how long they may wait for a slot."""
        with_parameters = not set(outputs) <= set(self.usual)
        return await self.vae.run_graph(self.kind, rows, with_parameters=with_parameters, seconds=seconds)


def find_graph(catalog: Catalog, timing: RequestTiming, name: str, version: int | None = None) -> Graph:
    """The graph that the protocol calls `name`, for one request; in the newest version if `version` is None.

    Raises:
        UnknownModel: there is none.
    """
    model, _, kind = name.rpartition(".")
    if kind not in GRAPHS:
        raise UnknownModel("models end in .encoder or .decoder; POST /v2/repository/index lists them")
    return Graph(catalog.find(model, version).for_request(timing), kind)


def all_graphs(catalog: Catalog) -> Iterator[Graph]:
    """Both graphs of every version of every model."""
    return (Graph(vae, kind) for vae in catalog for kind in GRAPHS)


def datatype(tensor: Tensor) -> str:
    """The protocol's name of a tensor's data type."""
    return NAMES[tensor.dtype]


def wire_shape(tensor: Tensor) -> list[int]:
    """Its shape with -1 for what is variable."""
    return [-1 if size is None else size for size in tensor.shape]
