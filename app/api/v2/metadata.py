"""`/v2/models/{name}`: whether a graph is ready, its tensors, and its configuration in Triton's form."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.routing.state import Server
from app.api.v2.graphs import FIND_PROBLEMS, READY_PROBLEMS, TAG, GraphVersion, NewestGraph
from app.codecs.tensors import NAMES

_READY_PROBLEMS = FIND_PROBLEMS | READY_PROBLEMS

router = APIRouter(prefix="/v2", tags=[TAG])


class ModelReady(BaseModel):
    """The graph is ready."""

    name: str
    ready: Literal[True] = True


class TensorMetadata(BaseModel):
    """One input or output."""

    name: str
    datatype: str = Field(description="UINT8 or FP32.")
    shape: list[int] = Field(description="Sizes; -1 for the number of rows and for any other variable size.")


class ModelMetadata(BaseModel):
    """One graph, its versions and tensors."""

    name: str
    versions: list[str]
    platform: Literal["onnx_onnxv1"] = "onnx_onnxv1"
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ConfigTensor(BaseModel):
    """One input or output of a Triton configuration."""

    name: str
    data_type: str = Field(description="TYPE_UINT8 or TYPE_FP32.")
    dims: list[int] = Field(description="Sizes of one row; -1 for a variable size.")


class ModelConfig(BaseModel):
    """One graph, as a Triton configuration."""

    name: str
    platform: Literal["onnxruntime_onnx"] = "onnxruntime_onnx"
    backend: Literal["onnxruntime"] = "onnxruntime"
    max_batch_size: int = Field(description="Maximum rows of one request.")
    input: list[ConfigTensor]
    output: list[ConfigTensor]
    default_model_filename: str


@router.get("/models/{name}", operation_id="v2_model_metadata", responses=FIND_PROBLEMS)
async def model_metadata(server: Server, graph: NewestGraph) -> ModelMetadata:
    """Inputs and outputs of a graph, in its newest version."""
    inputs, outputs = (
        [
            TensorMetadata(
                name=name, datatype=NAMES[it.dtype], shape=[-1 if size is None else size for size in it.shape]
            )
            for name, it in tensors.items()
        ]
        for tensors in graph.vae.graphs.tensors(graph.kind)
    )
    versions = [str(version) for version in server.catalog.versions(graph.vae.manifest.name)]
    return ModelMetadata(name=graph.name, versions=versions, inputs=inputs, outputs=outputs)


@router.get("/models/{name}/versions/{version}", operation_id="v2_model_version_metadata", responses=FIND_PROBLEMS)
async def model_version_metadata(server: Server, graph: GraphVersion) -> ModelMetadata:
    """Inputs and outputs of a graph."""
    return await model_metadata(server, graph)


@router.get("/models/{name}/ready", operation_id="v2_model_ready", responses=_READY_PROBLEMS)
async def model_ready(server: Server, graph: NewestGraph) -> ModelReady:
    """The graph is loaded and takes rows."""
    server.catalog.check_ready()
    return ModelReady(name=graph.name)


@router.get("/models/{name}/versions/{version}/ready", operation_id="v2_model_version_ready", responses=_READY_PROBLEMS)
async def model_version_ready(server: Server, graph: GraphVersion) -> ModelReady:
    """This version of the graph is loaded and takes rows."""
    return await model_ready(server, graph)


@router.get("/models/{name}/config", operation_id="v2_model_config", responses=FIND_PROBLEMS)
async def model_config(server: Server, graph: NewestGraph) -> ModelConfig:
    """Triton's configuration of a graph, in its newest version."""
    metadata = await model_metadata(server, graph)
    rows_in, rows_out = (
        [ConfigTensor(name=it.name, data_type=f"TYPE_{it.datatype}", dims=it.shape[1:]) for it in tensors]
        for tensors in (metadata.inputs, metadata.outputs)
    )
    encoder, decoder = graph.vae.manifest.graphs_of(graph.vae.execution_provider)
    return ModelConfig(
        name=graph.name,
        max_batch_size=server.limits.max_rows,
        input=rows_in,
        output=rows_out,
        default_model_filename=(encoder if graph.kind == "encoder" else decoder).file,
    )


@router.get("/models/{name}/versions/{version}/config", operation_id="v2_model_version_config", responses=FIND_PROBLEMS)
async def model_version_config(server: Server, graph: GraphVersion) -> ModelConfig:
    """Triton's configuration of a graph."""
    return await model_config(server, graph)
