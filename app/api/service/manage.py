"""Management: models are loaded, unloaded and reloaded while the server runs. There where there are admin keys."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field

from app.api.middleware.access import check_admin
from app.api.routing.problems import documented
from app.api.routing.state import Server, State, server_state
from app.api.service.models import Name, VersionQuery
from app.bundle.directory import ModelKey
from app.errors import BundleRefused, Conflict, Forbidden, InvalidInput, Unauthorized, UnknownModel

_BEARER = HTTPBearer(
    scheme_name="admin_key", description="VAE_ADMIN_KEY, or an admin key of VAE_KEYS_FILE.", auto_error=False
)


async def administered(request: Request, _: Annotated[Any, Security(_BEARER)]) -> State:
    """The server, for who brings an admin key, and where no other process serves.

    Raises:
        Unauthorized, Forbidden: the request does not bring one.
        Conflict: several workers serve, of which a request reaches one.
    """
    check_admin(request)
    server = server_state(request)
    if server.workers > 1:
        raise Conflict("several workers serve, and a request reaches one: send SIGHUP to their supervisor instead")
    return server


# Of the router, so that it is asked before a query is looked at.
router = APIRouter(tags=["manage"], dependencies=[Depends(administered)])

_PROBLEMS = documented(Unauthorized, Forbidden, Conflict, BundleRefused)
_OF_A_MODEL = documented(Unauthorized, Forbidden, UnknownModel, Conflict, InvalidInput)
_OF_A_BUNDLE = documented(Unauthorized, Forbidden, UnknownModel, Conflict, InvalidInput, BundleRefused)


class ModelVersion(BaseModel):
    """One version of a model."""

    name: str = Field(description="The model's name.", examples=["mnist"])
    version: int = Field(description="Its version.", examples=[2])


class Loaded(BaseModel):
    """What was asked for, and now answers."""

    loaded: list[ModelVersion] = Field(description="Each version, ascending; what was there already is among them.")


class Unloaded(BaseModel):
    """What answers no more."""

    unloaded: list[ModelVersion] = Field(description="Each version, ascending; none, where it was unloaded before.")


class Reloaded(BaseModel):
    """What is served now (`loaded` and `kept`), and what is not."""

    loaded: list[ModelVersion] = Field(description="New in the models directory, or changed there.")
    unloaded: list[ModelVersion] = Field(description="Gone from there.")
    kept: list[ModelVersion] = Field(description="Served as before.")
    refused: list[ModelVersion] = Field(
        description="There, but broken, the log says how; what answered before, if anything did, is among `kept`."
    )


@router.post("/models/reload", operation_id="reload_models", responses=_PROBLEMS)
async def reload_models(server: Server) -> Reloaded:
    """Serve what the models directory holds now, without a pause."""
    reloaded = await server.catalog.reload()
    return Reloaded(
        loaded=_versions(reloaded.loaded),
        unloaded=_versions(reloaded.unloaded),
        kept=_versions(reloaded.kept),
        refused=_versions(reloaded.refused),
    )


@router.post("/models/{name}/load", operation_id="load_model", responses=_OF_A_BUNDLE)
async def load_model(server: Server, name: Name, query: Annotated[VersionQuery, Query()]) -> Loaded:
    """Serve a model from the models directory, in one version or in all; what answers already goes on until then."""
    vaes = await server.catalog.load(name, query.version)
    return Loaded(loaded=_versions([ModelKey(vae.manifest.name, vae.manifest.version) for vae in vaes]))


@router.post("/models/{name}/unload", operation_id="unload_model", responses=_OF_A_MODEL)
async def unload_model(server: Server, name: Name, query: Annotated[VersionQuery, Query()]) -> Unloaded:
    """Serve a model no more, in one version or in all, until it is loaded again; accepted requests are answered."""
    return Unloaded(unloaded=_versions(await server.catalog.unload(name, query.version)))


def _versions(keys: list[ModelKey]) -> list[ModelVersion]:
    return [ModelVersion(name=name, version=version) for name, version in keys]
