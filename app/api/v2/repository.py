"""`/v2/repository/models/{name}`: load and unload models. Only available if an admin key is set."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path
from pydantic import AfterValidator, BaseModel, Field

from app.api.routing.administration import ADMINISTRATION
from app.api.routing.problems import documented
from app.api.routing.state import Server
from app.api.v2.graphs import GRAPHS, TAG
from app.api.v2.index import optional_body, optional_json
from app.errors import (
    BadRequest,
    BodyTooLarge,
    BundleRefused,
    Conflict,
    Forbidden,
    InvalidInput,
    Unauthorized,
    UnknownModel,
)
from app.vae.catalog import Catalog

router = APIRouter(prefix="/v2/repository/models", tags=[TAG], dependencies=[ADMINISTRATION])

_PROBLEMS = documented(
    BadRequest, Unauthorized, Forbidden, UnknownModel, Conflict, BodyTooLarge, InvalidInput, BundleRefused
)

ModelPath = Annotated[
    str,
    Path(
        description="Name of a model, or of one of its graphs; both graphs change together.",
        examples=["mnist-2d"],
    ),
]


def _check_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    if any(name == "config" or name.startswith("file:") for name in parameters):
        raise ValueError("models are loaded from the models directory alone")
    return parameters


class ChangeRequest(BaseModel):
    """Options of loading and unloading, as Triton's clients send them."""

    parameters: Annotated[dict[str, Any], AfterValidator(_check_parameters)] = Field(
        {}, description="`config` and files are refused; others are ignored."
    )


class RepositoryLoaded(BaseModel):
    """A model that was loaded, in every version."""

    name: str
    load: Literal[True] = True


class RepositoryUnloaded(BaseModel):
    """A model that was unloaded, in every version."""

    name: str
    unload: Literal[True] = True


Asked = Annotated[ChangeRequest, Depends(optional_json(ChangeRequest))]


@router.post(
    "/{name}/load",
    operation_id="v2_repository_load",
    openapi_extra=optional_body(ChangeRequest),
    responses=_PROBLEMS,
)
async def repository_load(server: Server, name: ModelPath, _: Asked) -> RepositoryLoaded:
    """Load all versions of a model; versions already served stay until they are replaced."""
    await server.catalog.load(await _bundle_name(server.catalog, name))
    return RepositoryLoaded(name=name)


@router.post(
    "/{name}/unload",
    operation_id="v2_repository_unload",
    openapi_extra=optional_body(ChangeRequest),
    responses=_PROBLEMS,
)
async def repository_unload(server: Server, name: ModelPath, _: Asked) -> RepositoryUnloaded:
    """Stop serving a model; requests already accepted are answered."""
    await server.catalog.unload(await _bundle_name(server.catalog, name))
    return RepositoryUnloaded(name=name)


async def _bundle_name(catalog: Catalog, name: str) -> str:
    """Name of the model; `name` may be the name of one of its graphs."""
    model, _, kind = name.rpartition(".")
    known = {it.name for it in await catalog.known()}
    return model if kind in GRAPHS and name not in known else name
