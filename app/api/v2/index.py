"""`POST /v2/repository/index`: the graphs of every model that is served or in the models directory."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, RootModel

from app.api.forms.bodies import Model, parse_json
from app.api.routing.problems import documented
from app.api.routing.state import Server
from app.api.v2.graphs import GRAPHS, TAG
from app.errors import BadRequest, BodyTooLarge, InvalidInput

router = APIRouter(prefix="/v2/repository", tags=[TAG])

READ_PROBLEMS = documented(BadRequest, BodyTooLarge, InvalidInput)
"""OpenAPI of the errors of an optional JSON body. Its Content-Type is ignored, because clients send none."""


class IndexRequest(BaseModel):
    """Which models to list."""

    ready: bool = Field(False, strict=True, description="Whether to list only models that are ready.")


class IndexEntry(BaseModel):
    """One version of one graph."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str = Field(description="Why it is not ready, or differs from the models directory.")


class RepositoryIndex(RootModel[list[IndexEntry]]):
    """Every version of every graph."""


def optional_body(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI of an optional JSON body."""
    return {"requestBody": {"content": {"application/json": {"schema": model.model_json_schema()}}}}


def optional_json(model: type[Model]) -> Callable[[Request], Awaitable[Model]]:
    """A dependency: the JSON body of a request, or the defaults of `model` if it has none.

    It raises BodyTooLarge or RequestValidationError if the body is too large or invalid.
    """

    async def read(request: Request) -> Model:
        return await parse_json(model, await request.body() or b"{}", request.scope)

    return read


@router.post(
    "/index", operation_id="v2_repository_index", openapi_extra=optional_body(IndexRequest), responses=READ_PROBLEMS
)
async def repository_index(
    server: Server, asked: Annotated[IndexRequest, Depends(optional_json(IndexRequest))]
) -> RepositoryIndex:
    """Both graphs of every version of every model, and whether they are ready."""
    entries = [
        IndexEntry.model_validate(
            {"name": f"{it.name}.{kind}", "version": str(it.version), "state": it.state.upper(), "reason": it.reason}
        )
        for it in await server.catalog.known()
        if it.state == "ready" or not asked.ready
        for kind in GRAPHS
    ]
    return RepositoryIndex(entries)
