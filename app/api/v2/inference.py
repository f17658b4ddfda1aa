"""`POST /v2/models/{name}/infer`: rows through one graph, in JSON or with the binary tensor extension."""

from typing import Any

from fastapi import APIRouter, Response

from app.api.routing.operation import Operation
from app.api.routing.problems import BODY_ERRORS, documented
from app.api.routing.state import RequestTiming, Server, State
from app.api.v2.graphs import TAG, GraphPath, VersionPath, find_graph
from app.api.v2.reply import InferReply, reply
from app.api.v2.request import InferRequest

router = APIRouter(prefix="/v2", tags=[TAG], route_class=Operation)

_HEADERS = {
    "X-Model": ("The model that answered.", "string"),
    "X-Version": ("Its version.", "integer"),
    "Inference-Header-Content-Length": ("Bytes of JSON before the tensors of a binary answer.", "integer"),
}
_ANSWER = {
    "description": "Outputs, in the order they were asked for; octet-stream where one of them is in binary.",
    "headers": {name: {"description": text, "schema": {"type": kind}} for name, (text, kind) in _HEADERS.items()},
}
PROBLEMS: dict[int | str, dict[str, Any]] = documented(*BODY_ERRORS) | {200: _ANSWER}


@router.post(
    "/models/{name}/infer",
    operation_id="v2_model_infer",
    response_model=InferReply,
    response_model_exclude_none=True,
    responses=PROBLEMS,
)
async def infer(server: Server, timing: RequestTiming, name: GraphPath, body: InferRequest) -> Response:
    """Run rows through a graph, in its newest version.

    Instead of `data`, a tensor may have the parameter `binary_data_size`, and its little-endian bytes behind the JSON,
    whose length the header `Inference-Header-Content-Length` tells; outputs with `binary_data`, or all of them with
    `binary_data_output`, come back in the same way. Bodies may be in the content codings gzip or deflate.
    """
    return await _infer(server, timing, name, None, body)


@router.post(
    "/models/{name}/versions/{version}/infer",
    operation_id="v2_model_version_infer",
    response_model=InferReply,
    response_model_exclude_none=True,
    responses=PROBLEMS,
)
async def version_infer(
    server: Server, timing: RequestTiming, name: GraphPath, version: VersionPath, body: InferRequest
) -> Response:
    """As `v2_model_infer`, in this version."""
    return await _infer(server, timing, name, version, body)


async def _infer(server: State, timing: RequestTiming, name: str, version: int | None, body: InferRequest) -> Response:
    graph = find_graph(server.catalog, timing, name, version)
    wanted = body.wanted(graph)
    rows = body.rows(graph, server.limits.max_rows)
    arrays = await graph.run(rows, list(wanted), body.seconds())
    return await reply(graph, body.id, {output: arrays[output] for output in wanted}, wanted, body.accepted)
