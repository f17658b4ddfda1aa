"""`GET /models`: the served models and their state."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from app.api.routing.problems import documented
from app.api.routing.queries import Strict
from app.api.routing.state import RequestTiming, Server
from app.bundle.manifest import ExecutionProvider, Manifest
from app.errors import InvalidInput, UnknownModel
from app.vae.catalog import Catalog
from app.vae.vae import Vae

router = APIRouter(tags=["models"])


class ServedModel(BaseModel):
    """One version of a model."""

    name: str
    version: int
    versions: list[int] = Field(description="Every version of this model, ascending.")
    default: bool = Field(description="Whether requests that name no model use this one.")
    state: Literal["ready"] = Field(description="`ready`: the model takes requests.")
    reason: str = Field(
        description="Why the version differs from the models directory: its files there are broken or gone, as the last"
        " load or reload found; it is served all the same. Empty if it does not differ."
    )
    queued_rows: int = Field(description="Rows that wait for a slot now.")
    execution_provider: ExecutionProvider = Field(description="ONNX Runtime's execution provider.")
    manifest: Manifest = Field(description="The bundle's manifest.")


class ServedModels(BaseModel):
    """All served models."""

    default: str = Field(description="The model of requests that name none.")
    queued_rows: int = Field(description="Rows that wait for a slot now, of all models.")
    models: list[ServedModel] = Field(description="Every version of every model.")


Name = Annotated[str, Path(description="A model's name.", examples=["mnist-2d"])]


class VersionQuery(Strict):
    """Which version of a model."""

    version: int | None = Field(None, ge=1, description="A version; the newest if absent.")


@router.get("/models", operation_id="list_models")
async def list_models(server: Server) -> ServedModels:
    """Every model and version, with its manifest."""
    catalog = server.catalog
    return ServedModels(
        default=catalog.default,
        queued_rows=catalog.batcher.queue.rows,
        models=[_describe(catalog, vae) for vae in catalog],
    )


@router.get("/models/{name}", operation_id="get_model", responses=documented(UnknownModel, InvalidInput))
async def get_model(
    server: Server, timing: RequestTiming, name: Name, query: Annotated[VersionQuery, Query()]
) -> ServedModel:
    """One model, with its manifest."""
    return _describe(server.catalog, server.catalog.find(name, query.version).for_request(timing))


def _describe(catalog: Catalog, vae: Vae) -> ServedModel:
    name, version = vae.manifest.name, vae.manifest.version
    versions = catalog.versions(name)
    return ServedModel(
        name=name,
        version=version,
        versions=versions,
        default=name == catalog.default and version == versions[-1],
        state="ready",
        reason=catalog.reason(vae.manifest.key),
        queued_rows=vae.graphs.queued_rows,
        execution_provider=vae.execution_provider,
        manifest=vae.manifest,
    )
