"""`POST /v2/models/{name}/infer`: rows through one graph, in JSON or with the binary tensor extension."""

from dataclasses import replace

from fastapi import APIRouter, Response

from app.api.forms.writers import MODEL_HEADERS, header_entries
from app.api.routing.operation import Operation, OperationRoute, Reader
from app.api.routing.queries import Strict
from app.api.routing.state import State
from app.api.v2.graphs import TAG, GraphModel, GraphPath, VersionPath, find_graph
from app.api.v2.reply import InferReply, reply
from app.api.v2.request import InferBody, InferRequest
from app.inference.graphs import Lane
from app.vae.vae import Vae

_HEADERS = MODEL_HEADERS | {
    "Inference-Header-Content-Length": ("Bytes of JSON before the tensors of a binary response.", "integer"),
}
_RESPONSE = {
    "description": "Outputs, in the requested order; octet-stream if any of them is in binary.",
    "headers": header_entries(_HEADERS),
}


class GraphParameters(Strict):
    """The parameters of a path that names a graph in its newest version."""

    name: GraphPath


class GraphVersionParameters(GraphParameters):
    """The parameters of a path that names a graph in one version."""

    version: VersionPath


async def infer(server: State, vae: Vae, path: GraphParameters, body: InferRequest) -> Response:
    """Run rows through a graph, in its newest version.

    Instead of `data`, a tensor may have the parameter `binary_data_size`; its little-endian bytes then follow the JSON,
    whose length is in the header `Inference-Header-Content-Length`. Outputs with `binary_data`, or all of them with
    `binary_data_output`, are returned in the same way. If that header is 0, the body is nothing but the rows of the one
    input, with the model's data type, and all outputs are returned in binary. Bodies may have the Content-Encoding
    gzip or deflate.
    """
    graph = GraphModel(vae, "encoder" if path.name.endswith(".encoder") else "decoder")
    wanted = body.wanted(graph)
    rows = await body.rows(server, graph)
    lane: Lane = graph.kind if wanted.keys() <= set(graph.default_outputs) else "parameters"
    arrays = await vae.run_graph(lane, rows, body.seconds())
    return await reply(graph, body.id, {output: arrays[output] for output in wanted}, wanted, body.accepted)


_NEWEST = Operation(
    path="/v2/models/{name}/infer",
    operation_id="v2_model_infer",
    tag=TAG,
    query=GraphParameters,
    find=lambda catalog, timing, path: find_graph(catalog, timing, path.name).vae,
    compute=infer,
    reader=Reader(InferBody()),
    answer=InferReply,
    responses={200: _RESPONSE},
)
OPERATIONS = (
    _NEWEST,
    replace(
        _NEWEST,
        path="/v2/models/{name}/versions/{version}/infer",
        operation_id="v2_model_version_infer",
        query=GraphVersionParameters,
        find=lambda catalog, timing, path: find_graph(catalog, timing, path.name, path.version).vae,
        description="As `v2_model_infer`, in this version.",
    ),
)

router = APIRouter()
router.routes += map(OperationRoute, OPERATIONS)
