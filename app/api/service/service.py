"""The service itself: its name and links, its health, and its documentation page."""

from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel

from app import __version__
from app.api.routing.negotiation import wants_page
from app.api.routing.problems import documented
from app.api.routing.state import Server
from app.api.service.pages import Assets
from app.errors import Overloaded

STATIC = Path(__file__).parents[2] / "static"
assets = Assets(directory=STATIC)

_EXPLORER_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI sets styles by script, and shows the images it receives.
_DOCS_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
)

router = APIRouter(tags=["service"])


class Service(BaseModel):
    """Name and version of the service, and links to its parts."""

    name: Literal["vaeserve"] = "vaeserve"
    version: str = __version__
    links: dict[str, str] = {
        "docs": "docs",
        "openapi": "openapi.json",
        "models": "models",
        "sample": "sample/image?n=64",
    }


class Health(BaseModel):
    """The state of the server."""

    status: Literal["live", "ready"]


@router.get("/", operation_id="service", response_model=Service)
async def service(request: Request, response: Response) -> Service | Response:
    """Name, version and links of this service."""
    if wants_page(request.scope):  # not in the OpenAPI document, because generated clients accept JSON
        page = await assets.get_response("explorer/index.html", request.scope)
        page.headers.add_vary_header("Accept")
        page.headers["Content-Security-Policy"] = _EXPLORER_POLICY
        return page
    response.headers["Vary"] = "Accept"
    return Service()


@router.get("/health/live", operation_id="live")
async def live() -> Health:
    """The process is running."""
    return Health(status="live")


@router.get("/health/ready", operation_id="ready", responses=documented(Overloaded))
async def ready(server: Server) -> Health:
    """Every model is loaded and the queue takes rows; 503 while the server is stopping."""
    server.catalog.check_ready()
    return Health(status="ready")


@router.get("/docs", include_in_schema=False)
async def docs() -> FileResponse:
    """The interactive documentation of the API; works offline."""
    return FileResponse(STATIC / "docs.html", headers={"Content-Security-Policy": _DOCS_POLICY})
