"""The models of the Open Inference Protocol: each graph of a served model, `{name}.encoder` or `{name}.decoder`."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path

from app.api.routing.problems import documented
from app.api.routing.state import RequestTiming, Server
from app.bundle.manifest import Tensor
from app.errors import InvalidInput, Overloaded, UnknownModel
from app.inference.graphs import GraphName
from app.vae.catalog import Catalog
from app.vae.vae import Vae

TAG = "inference"

FIND_PROBLEMS = documented(UnknownModel, InvalidInput)
READY_PROBLEMS = documented(Overloaded)

GraphPath = Annotated[
    str, Path(description="A model's name, followed by `.encoder` or `.decoder`.", examples=["mnist-2d.decoder"])
]
VersionPath = Annotated[int, Path(ge=1, description="A version of the model.", examples=[1])]

GRAPHS: tuple[GraphName, GraphName] = ("encoder", "decoder")


@dataclass(frozen=True)
class GraphModel:
    """One graph of a served model, as a model of the protocol."""

    vae: Vae
    kind: GraphName

    @property
    def name(self) -> str:
        """Name of the graph in the protocol."""
        return f"{self.vae.manifest.name}.{self.kind}"

    @property
    def version(self) -> str:
        """Version of the model, as a string."""
        return str(self.vae.manifest.version)

    @property
    def input(self) -> str:
        """Name of the one input."""
        return "image" if self.kind == "encoder" else "latent"

    @property
    def outputs(self) -> dict[str, Tensor]:
        """The output tensors, by name."""
        return self.vae.graphs.tensors(self.kind)[1]

    @property
    def default_outputs(self) -> list[str]:
        """Outputs if a request names none: all but the parameters of the likelihood."""
        return list(self.outputs) if self.kind == "encoder" else ["image"]


def find_graph(catalog: Catalog, timing: RequestTiming, name: str, version: int | None = None) -> GraphModel:
    """The graph with this name in the protocol, for one request; in the newest version if `version` is None.

    Raises:
        UnknownModel: there is no such graph or version.
    """
    model, _, kind = name.rpartition(".")
    if kind not in GRAPHS:
        raise UnknownModel("models end in .encoder or .decoder; POST /v2/repository/index lists them")
    return GraphModel(catalog.find(model, version).for_request(timing), kind)


async def _newest_graph(server: Server, timing: RequestTiming, name: GraphPath) -> GraphModel:
    return find_graph(server.catalog, timing, name)


async def _graph_version(server: Server, timing: RequestTiming, name: GraphPath, version: VersionPath) -> GraphModel:
    return find_graph(server.catalog, timing, name, version)


NewestGraph = Annotated[GraphModel, Depends(_newest_graph)]
"""Parameter of an endpoint: the graph that the path names, in its newest version."""
GraphVersion = Annotated[GraphModel, Depends(_graph_version)]
"""Parameter of an endpoint: the graph and version that the path names."""
