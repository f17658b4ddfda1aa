"""`/v2/models/stats`: statistics of graphs, in Triton's form."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.routing.state import Server
from app.api.v2.graphs import FIND_PROBLEMS, GRAPHS, TAG, GraphModel, GraphVersion, NewestGraph

router = APIRouter(prefix="/v2", tags=[TAG])


class TotalTime(BaseModel):
    """A number of requests, and the nanoseconds that they took in total."""

    count: int
    ns: int


class InferenceStatistics(BaseModel):
    """Requests of a graph, by result and by phase."""

    success: TotalTime
    fail: TotalTime
    queue: TotalTime = Field(description="Waiting for a slot.")
    compute_infer: TotalTime = Field(description="From taking the first row until the last row was done.")


class ModelStatistics(BaseModel):
    """Statistics of one version of a graph since it was loaded, in one server process."""

    name: str
    version: str
    last_inference: int = Field(description="Time of the last success in milliseconds since 1970; 0 if there was none.")
    inference_count: int = Field(description="Rows run.")
    execution_count: int = Field(description="Batches run.")
    inference_stats: InferenceStatistics


class Statistics(BaseModel):
    """Statistics of graphs."""

    model_stats: list[ModelStatistics]


@router.get("/models/stats", operation_id="v2_statistics")
async def statistics(server: Server) -> Statistics:
    """Statistics of every graph in every version, in one server process; `/metrics` sums over all processes."""
    graphs = (GraphModel(vae, kind) for vae in server.catalog for kind in GRAPHS)
    return Statistics(model_stats=[_statistics(graph) for graph in graphs])


@router.get("/models/{name}/stats", operation_id="v2_model_statistics", responses=FIND_PROBLEMS)
async def model_statistics(server: Server, graph: NewestGraph) -> Statistics:
    """Statistics of every version of a graph, in one server process."""
    model = graph.vae.manifest.name
    vaes = [server.catalog.find(model, version) for version in server.catalog.versions(model)]
    return Statistics(model_stats=[_statistics(GraphModel(vae, graph.kind)) for vae in vaes])


@router.get(
    "/models/{name}/versions/{version}/stats", operation_id="v2_model_version_statistics", responses=FIND_PROBLEMS
)
async def model_version_statistics(graph: GraphVersion) -> Statistics:
    """Statistics of one version of a graph, in one server process."""
    return Statistics(model_stats=[_statistics(graph)])


def _statistics(graph: GraphModel) -> ModelStatistics:
    counted = graph.vae.graphs.statistics[graph.kind]
    return ModelStatistics(
        name=graph.name,
        version=graph.version,
        last_inference=int(1e3 * counted.last),
        inference_count=counted.rows,
        execution_count=counted.batches,
        inference_stats=InferenceStatistics(
            success=_total(counted.requests, counted.queue + counted.inference),
            fail=_total(counted.failures, counted.failing),
            queue=_total(counted.requests, counted.queue),
            compute_infer=_total(counted.requests, counted.inference),
        ),
    )


def _total(count: int, seconds: float) -> TotalTime:
    return TotalTime(count=count, ns=int(1e9 * seconds))
