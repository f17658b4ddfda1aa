"""`/v2/models/{name}`: whether a graph is ready, its tensors, and its configuration in Triton's form."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.routing.state import Server, State
from app.api.v2.graphs import (
    FIND_PROBLEMS,
    READY_PROBLEMS,
    TAG,
    GraphModel,
    GraphVersion,
    NewestGraph,
    datatype,
    wire_shape,
)

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
    return _metadata(server, graph)


@router.get("/models/{name}/versions/{version}", operation_id="v2_model_version_metadata", responses=FIND_PROBLEMS)
async def model_version_metadata(server: Server, graph: GraphVersion) -> ModelMetadata:
    """Inputs and outputs of a graph."""
    return _metadata(server, graph)


@router.get("/models/{name}/ready", operation_id="v2_model_ready", responses=_READY_PROBLEMS)
async def model_ready(server: Server, graph: NewestGraph) -> ModelReady:
    """The graph is loaded and takes rows."""
    return _ready(server, graph)


@router.get("/models/{name}/versions/{version}/ready", operation_id="v2_model_version_ready", responses=_READY_PROBLEMS)
async def model_version_ready(server: Server, graph: GraphVersion) -> ModelReady:
    """This version of the graph is loaded and takes rows."""
    return _ready(server, graph)


@router.get("/models/{name}/config", operation_id="v2_model_config", responses=FIND_PROBLEMS)
async def model_config(server: Server, graph: NewestGraph) -> ModelConfig:
    """Triton's configuration of a graph, in its newest version."""
    return _config(server, graph)


@router.get("/models/{name}/versions/{version}/config", operation_id="v2_model_version_config", responses=FIND_PROBLEMS)
async def model_version_config(server: Server, graph: GraphVersion) -> ModelConfig:
    """Triton's configuration of a graph."""
    return _config(server, graph)


def _ready(server: State, graph: GraphModel) -> ModelReady:
    server.catalog.check_ready()
    return ModelReady(name=graph.name)


def _metadata(server: State, graph: GraphModel) -> ModelMetadata:
    inputs, outputs = (
        [TensorMetadata(name=name, datatype=datatype(it), shape=wire_shape(it)) for name, it in tensors.items()]
        for tensors in (graph.inputs, graph.outputs)
    )
    versions = [str(version) for version in server.catalog.versions(graph.vae.manifest.name)]
    return ModelMetadata(name=graph.name, versions=versions, inputs=inputs, outputs=outputs)


def _config(server: State, graph: GraphModel) -> ModelConfig:
    inputs, outputs = (
        [ConfigTensor(name=name, data_type=f"TYPE_{datatype(it)}", dims=wire_shape(it)[1:]) for name, it in it.items()]
        for it in (graph.inputs, graph.outputs)
    )
    return ModelConfig(
        name=graph.name,
        max_batch_size=server.limits.max_rows,
        input=inputs,
        output=outputs,
        default_model_filename=graph.file,
    )
