"""`/v2`: the server and its health."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from app import __version__
from app.api.routing.state import Server
from app.api.v2.graphs import READY_PROBLEMS, TAG

router = APIRouter(prefix="/v2", tags=[TAG])


class ServerMetadata(BaseModel):
    """Name and version of the server, and the extensions of the protocol that it supports."""

    name: Literal["vaeserve"] = "vaeserve"
    version: str = __version__
    extensions: list[str] = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]


class Live(BaseModel):
    """The process is running."""

    live: Literal[True] = True


class Ready(BaseModel):
    """The server takes requests."""

    ready: Literal[True] = True


@router.get("", operation_id="v2_server_metadata")
async def server_metadata() -> ServerMetadata:
    """Name, version and extensions."""
    return ServerMetadata()


@router.get("/health/live", operation_id="v2_server_live")
async def server_live() -> Live:
    """The process is running."""
    return Live()


@router.get("/health/ready", operation_id="v2_server_ready", responses=READY_PROBLEMS)
async def server_ready(server: Server) -> Ready:
    """Every model is loaded and the queue takes rows; 503 while the server is stopping."""
    server.catalog.check_ready()
    return Ready()
