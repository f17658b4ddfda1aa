"""`POST /reconstruct`: images encoded and decoded."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from app.api.answers import Images, base64_pictures, documented, npy_images, stamp
from app.api.operation import Operation
from app.api.parameters import IMAGE_FILES, NPY_IMAGES, ImageFiles, RawBody, SeedQuery
from app.api.pictures import PicturesRequest, ReadingQuery, images_of_array, images_of_files, images_of_json
from app.api.problems import BODY_PROBLEMS
from app.api.state import Server
from app.arrays import NPY
from app.images import Pixels
from app.vae import Mode, Vae

router = APIRouter(tags=["reconstruct"], route_class=Operation)


class ModeQuery(SeedQuery):
    """Which latent an image is decoded from."""

    mode: Mode = Field(
        "mean",
        description="The posterior's mean, one draw from it, or the posterior predictive: the average of 32 draws.",
    )


class ReconstructQuery(ModeQuery, ReadingQuery):
    """How to reconstruct pictures."""


class ReconstructResponse(Images):
    """Reconstructions, in the order of the pictures."""

    seed: int | None = Field(None, description="The seed of the draws, where there are any.")


@router.post("/reconstruct", operation_id="reconstruct", responses=BODY_PROBLEMS, response_model_exclude_none=True)
async def reconstruct(
    server: Server, query: Annotated[ReconstructQuery, Query()], body: PicturesRequest
) -> ReconstructResponse:
    """What the model makes of each picture."""
    vae = server.catalog.find(query.model, query.version)
    images = await images_of_json(server, vae, query, body)
    return await _json(vae, *await _reconstruct(vae, query, images))


@router.post(
    "/reconstruct/files",
    operation_id="reconstruct_files",
    openapi_extra=IMAGE_FILES,
    responses=BODY_PROBLEMS,
    response_model_exclude_none=True,
)
async def reconstruct_files(
    server: Server, query: Annotated[ReconstructQuery, Query()], files: ImageFiles
) -> ReconstructResponse:
    """As `reconstruct`, of uploaded files."""
    vae = server.catalog.find(query.model, query.version)
    images = await images_of_files(server, vae, query, files)
    return await _json(vae, *await _reconstruct(vae, query, images))


@router.post(
    "/reconstruct/npy",
    operation_id="reconstruct_npy",
    openapi_extra=NPY_IMAGES,
    response_class=Response,
    responses=BODY_PROBLEMS | documented("uint8 [N, H, W] or [N, H, W, C].", NPY, seeded=True),
)
async def reconstruct_npy(server: Server, query: Annotated[ModeQuery, Query()], body: RawBody) -> Response:
    """As `reconstruct`, from npy to npy."""
    vae = server.catalog.find(query.model, query.version)
    images = images_of_array(server, vae, body)
    return npy_images(vae, *await _reconstruct(vae, query, images))


async def _reconstruct(vae: Vae, query: ModeQuery, images: Pixels) -> tuple[Pixels, int | None]:
    seed = query.seed_or_new()
    reconstructed = await vae.reconstruct(images, query.mode, seed)
    return reconstructed, None if query.mode == "mean" else seed


async def _json(vae: Vae, images: Pixels, seed: int | None) -> ReconstructResponse:
    return ReconstructResponse(**stamp(vae), images=await base64_pictures(images), seed=seed)
