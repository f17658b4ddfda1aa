"""`GET /manifold/image`: the latent plane as a picture."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from app.api.answers import PICTURE_TYPES, documented, picture
from app.api.operation import Operation
from app.api.parameters import ModelQuery, check_count
from app.api.problems import MODEL_PROBLEMS
from app.api.state import Server
from app.errors import InvalidInput
from app.gaussian import manifold_grid
from app.images import PictureFormat
from app.vae import Vae

router = APIRouter(tags=["manifold"], route_class=Operation)


class ManifoldQuery(ModelQuery):
    """Which plane to show, and how finely."""

    n: int = Field(20, ge=1, description="Pictures along each side; at most `VAE_MAX_MANIFOLD`.")
    dims: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)] | None = Field(
        None, description="Two latent dimensions, across and up; the two of highest KL if absent."
    )
    format: PictureFormat = Field("png", description="The picture's format.")


@router.get(
    "/manifold/image",
    operation_id="manifold_image",
    response_class=Response,
    responses=MODEL_PROBLEMS | documented("n x n decoded latents in one picture.", *PICTURE_TYPES),
)
async def manifold_image(server: Server, query: Annotated[ManifoldQuery, Query()]) -> Response:
    """Decode an even grid of the prior's quantiles from 0.05 to 0.95; the second dimension is largest at the top."""
    vae = server.catalog.find(query.model, query.version)
    check_count(query.n, server.limits.max_manifold, "/query/n")
    dims = vae.main_dims() if query.dims is None else _checked(query.dims, vae)
    latents = vae.plane(manifold_grid(query.n), dims)
    return await picture(vae, await vae.decode(latents), query.format, columns=query.n)


def _checked(dims: list[int], vae: Vae) -> tuple[int, int]:
    vae.main_dims()  # refuses latents that have no plane
    first, second = dims
    if first == second or max(dims) >= vae.latent_shape[0]:
        raise InvalidInput(f"two different dimensions of 0 to {vae.latent_shape[0] - 1}", "/query/dims")
    return first, second
