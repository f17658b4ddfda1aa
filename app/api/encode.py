"""`POST /encode`: images to posteriors."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from app.api.answers import Answer, LatentList, documented, nested, npz, stamp
from app.api.operation import Operation
from app.api.parameters import IMAGE_FILES, NPY_IMAGES, ImageFiles, RawBody, SeedQuery
from app.api.pictures import PicturesRequest, ReadingQuery, images_of_array, images_of_files, images_of_json
from app.api.problems import BODY_PROBLEMS
from app.api.state import Server
from app.arrays import NPZ
from app.gaussian import Floats, Posterior
from app.images import Pixels
from app.vae import Vae

router = APIRouter(tags=["encode"], route_class=Operation)


class DrawQuery(SeedQuery):
    """Whether to draw from the posteriors."""

    draw: bool = Field(False, description="Also answer one draw from each posterior.")


class EncodeQuery(DrawQuery, ReadingQuery):
    """How to encode pictures."""


class EncodeResponse(Answer):
    """Posteriors q(z|x), one a picture."""

    mean: LatentList = Field(description="Means of the posteriors.")
    log_std: LatentList | None = Field(
        None, description="Logarithms of their standard deviations; absent where the encoder is deterministic."
    )
    latents: LatentList | None = Field(None, description="One draw from each posterior, with `draw=true`.")
    seed: int | None = Field(None, description="The seed of the draws, with `draw=true`.")


@router.post("/encode", operation_id="encode", responses=BODY_PROBLEMS, response_model_exclude_none=True)
async def encode(server: Server, query: Annotated[EncodeQuery, Query()], body: PicturesRequest) -> EncodeResponse:
    """Posterior mean and log standard deviation of each picture."""
    vae = server.catalog.find(query.model, query.version)
    return _json(vae, *await _encode(vae, query, await images_of_json(server, vae, query, body)))


@router.post(
    "/encode/files",
    operation_id="encode_files",
    openapi_extra=IMAGE_FILES,
    responses=BODY_PROBLEMS,
    response_model_exclude_none=True,
)
async def encode_files(server: Server, query: Annotated[EncodeQuery, Query()], files: ImageFiles) -> EncodeResponse:
    """As `encode`, of uploaded files."""
    vae = server.catalog.find(query.model, query.version)
    return _json(vae, *await _encode(vae, query, await images_of_files(server, vae, query, files)))


@router.post(
    "/encode/npy",
    operation_id="encode_npy",
    openapi_extra=NPY_IMAGES,
    response_class=Response,
    responses=BODY_PROBLEMS | documented("Arrays `mean`, `log_std` and, with draws, `latents`.", NPZ, seeded=True),
)
async def encode_npy(server: Server, query: Annotated[DrawQuery, Query()], body: RawBody) -> Response:
    """As `encode`, of an npy array of the model's size; answers npz."""
    vae = server.catalog.find(query.model, query.version)
    posterior, latents, seed = await _encode(vae, query, images_of_array(server, vae, body))
    arrays = {"mean": posterior.mean, "log_std": posterior.log_std, "latents": latents}
    return npz(vae, {name: array for name, array in arrays.items() if array is not None}, seed)


Encoded = tuple[Posterior, Floats | None, int | None]
"""Posterior, draws, and the draws' seed."""


async def _encode(vae: Vae, query: DrawQuery, images: Pixels) -> Encoded:
    posterior = await vae.encode(images)
    if not query.draw:
        return posterior, None, None
    seed = query.seed_or_new()
    return posterior, vae.draw(posterior, seed), seed


def _json(vae: Vae, posterior: Posterior, latents: Floats | None, seed: int | None) -> EncodeResponse:
    return EncodeResponse(
        **stamp(vae),
        mean=nested(posterior.mean),
        log_std=None if posterior.log_std is None else nested(posterior.log_std),
        latents=None if latents is None else nested(latents),
        seed=seed,
    )
