"""Management: load, unload and reload models while the server runs. Only available if there are admin keys."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.api.routing.administration import ADMINISTRATION
from app.api.routing.problems import documented
from app.api.routing.state import Server
from app.api.service.models import Name, VersionQuery
from app.errors import BundleRefused, Conflict, Forbidden, InvalidInput, Unauthorized, UnknownModel

router = APIRouter(tags=["manage"], dependencies=[ADMINISTRATION])

_PROBLEMS = documented(Unauthorized, Forbidden, Conflict, BundleRefused)
_OF_A_MODEL = documented(Unauthorized, Forbidden, UnknownModel, Conflict, InvalidInput, BundleRefused)


class ModelVersion(BaseModel):
    """One version of a model."""

    name: str = Field(description="The model's name.", examples=["mnist"])
    version: int = Field(description="Version of the model.", examples=[2])


class Loaded(BaseModel):
    """The versions that the request asked for, now served."""

    loaded: list[ModelVersion] = Field(description="Each version, ascending, including versions already served.")


class Unloaded(BaseModel):
    """The versions that are no longer served."""

    unloaded: list[ModelVersion] = Field(description="Each version, ascending; empty if none was served.")


class Reloaded(BaseModel):
    """The versions that are served now (`loaded` and `kept`), and the versions that are not."""

    loaded: list[ModelVersion] = Field(description="New or changed in the models directory.")
    unloaded: list[ModelVersion] = Field(description="Removed from the models directory.")
    kept: list[ModelVersion] = Field(description="Served as before.")
    refused: list[ModelVersion] = Field(
        description="Broken in the models directory; see the log. A version that is served all the same is in `kept`."
    )


@router.post("/models/reload", operation_id="reload_models", responses=_PROBLEMS)
async def reload_models(server: Server) -> Reloaded:
    """Serve the current content of the models directory, without a pause; verify the files of every version."""
    return Reloaded.model_validate(await server.catalog.reload(), from_attributes=True)


@router.post("/models/{name}/load", operation_id="load_model", responses=_OF_A_MODEL)
async def load_model(server: Server, name: Name, query: Annotated[VersionQuery, Query()]) -> Loaded:
    """Load one version or all versions of a model; versions already served stay until they are replaced."""
    vaes = await server.catalog.load(name, query.version)
    return Loaded.model_validate({"loaded": [vae.manifest for vae in vaes]}, from_attributes=True)


@router.post("/models/{name}/unload", operation_id="unload_model", responses=_OF_A_MODEL)
async def unload_model(server: Server, name: Name, query: Annotated[VersionQuery, Query()]) -> Unloaded:
    """Stop serving one version or all versions of a model; requests already accepted are answered."""
    unloaded = await server.catalog.unload(name, query.version)
    return Unloaded.model_validate({"unloaded": unloaded}, from_attributes=True)
