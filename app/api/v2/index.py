"""`POST /v2/repository/index`: the graphs of every model that is served or lies in the models directory."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, RootModel

from app.api.forms.bodies import parse_json
from app.api.routing.problems import documented
from app.api.routing.state import Server
from app.api.v2.graphs import GRAPHS, TAG
from app.errors import BadRequest, BodyTooLarge, InvalidInput

router = APIRouter(prefix="/v2/repository", tags=[TAG])

READ_PROBLEMS = documented(BadRequest, BodyTooLarge, InvalidInput)
"""What a body can be answered with that is read by itself: clients send these without any Content-Type, or none."""


class IndexRequest(BaseModel):
    """Which models to list."""

    ready: bool = Field(False, strict=True, description="Only those that answer.")


class IndexEntry(BaseModel):
    """One version of one graph."""

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str = Field(description="Why it is not ready, or not as the models directory has it.")


class Index(RootModel[list[IndexEntry]]):
    """Every version of every graph."""


def optional_body(model: type[BaseModel]) -> dict[str, Any]:
    """OpenAPI of a JSON body that may be left out."""
    return {"requestBody": {"content": {"application/json": {"schema": model.model_json_schema()}}}}


async def index_request(request: Request) -> IndexRequest:
    """The body, if there is one.

    Raises:
        BodyTooLarge, RequestValidationError: it is not one.
    """
    return parse_json(IndexRequest, await request.body() or b"{}")


@router.post(
    "/index", operation_id="v2_repository_index", openapi_extra=optional_body(IndexRequest), responses=READ_PROBLEMS
)
async def repository_index(server: Server, asked: Annotated[IndexRequest, Depends(index_request)]) -> Index:
    """Both graphs of every version of every model, and whether they answer."""
    entries = [
        IndexEntry.model_validate(
            {"name": f"{it.name}.{kind}", "version": str(it.version), "state": it.state.upper(), "reason": it.reason}
        )
        for it in server.catalog.known()
        if it.state == "ready" or not asked.ready
        for kind in GRAPHS
    ]
    return Index(entries)
