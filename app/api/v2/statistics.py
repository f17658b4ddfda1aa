"""`/v2/models/stats`: statistics of graphs, as Triton has them."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.routing.state import RequestTiming, Server
from app.api.v2.graphs import FIND_PROBLEMS, TAG, Graph, GraphPath, VersionPath, all_graphs, find_graph

router = APIRouter(prefix="/v2", tags=[TAG])


class Duration(BaseModel):
    """How many requests, and nanoseconds that they took together."""

    count: int
    ns: int


class InferenceStatistics(BaseModel):
    """What became of the requests of a graph."""

    success: Duration
    fail: Duration
    queue: Duration = Field(description="Waiting for a slot.")
    compute_infer: Duration = Field(description="From then until the last row was done.")


class ModelStatistics(BaseModel):
    """One version of one graph, since it was loaded, in the process that answers."""

    name: str
    version: str
    last_inference: int = Field(description="Milliseconds since 1970; 0 if there was none.")
    inference_count: int = Field(description="Rows.")
    execution_count: int = Field(description="Batches.")
    inference_stats: InferenceStatistics


class Statistics(BaseModel):
    """Statistics of graphs."""

    model_stats: list[ModelStatistics]


@router.get("/models/stats", operation_id="v2_statistics")
async def statistics(server: Server) -> Statistics:
    """Statistics of every graph in every version, of this one server process: `/metrics` adds them up."""
    return Statistics(model_stats=[_statistics(graph) for graph in all_graphs(server.catalog)])


@router.get("/models/{name}/stats", operation_id="v2_model_statistics", responses=FIND_PROBLEMS)
async def model_statistics(server: Server, timing: RequestTiming, name: GraphPath) -> Statistics:
    """Statistics of every version of a graph, of this one server process."""
    newest = find_graph(server.catalog, timing, name)
    versions = server.catalog.versions(newest.vae.manifest.name)
    graphs = [find_graph(server.catalog, timing, name, version) for version in versions]
    return Statistics(model_stats=[_statistics(graph) for graph in graphs])


@router.get(
    "/models/{name}/versions/{version}/stats", operation_id="v2_model_version_statistics", responses=FIND_PROBLEMS
)
async def model_version_statistics(
    server: Server, timing: RequestTiming, name: GraphPath, version: VersionPath
) -> Statistics:
    """Statistics of a graph, of this one server process."""
    return Statistics(model_stats=[_statistics(find_graph(server.catalog, timing, name, version))])


def _statistics(graph: Graph) -> ModelStatistics:
    seen = graph.vae.graphs.statistics[graph.kind]
    return ModelStatistics(
        name=graph.name,
        version=graph.version,
        last_inference=int(1e3 * seen.last),
        inference_count=seen.rows,
        execution_count=seen.batches,
        inference_stats=InferenceStatistics(
            success=_duration(seen.requests, seen.queue + seen.inference),
            fail=_duration(seen.failures, seen.failing),
            queue=_duration(seen.requests, seen.queue),
            compute_infer=_duration(seen.requests, seen.inference),
        ),
    )


def _duration(count: int, seconds: float) -> Duration:
    return Duration(count=count, ns=int(1e9 * seconds))
