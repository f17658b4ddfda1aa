"""`POST /encode`: images to posteriors."""

from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Response
from numpy.typing import NDArray
from pydantic import Field

from app.api.answers import Answer, LatentList, documented, nested, npz, stamp
from app.api.operation import Operation
from app.api.parameters import (
    IMAGE_FILES,
    NPY_IMAGES,
    ImageFiles,
    RawBody,
    ReadingQuery,
    SeedQuery,
    Strict,
    check_count,
    decode_base64,
    decode_pictures,
)
from app.api.problems import BODY_PROBLEMS
from app.api.state import Server, State
from app.arrays import NPZ, read_npy
from app.errors import InvalidInput
from app.gaussian import Floats, Posterior
from app.images import Pixels
from app.vae import Vae

router = APIRouter(tags=["encode"], route_class=Operation)

# A 4 x 4 grey PNG: any size is resized to the model's.
EXAMPLE_IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAAAAACMmsGiAAAAEElEQVR4nGNgQAH/GWAsAABDBAIAvYkpVwAAAABJRU5ErkJggg=="

Base64Image = Annotated[str, Field(min_length=1, description="Base64 of a PNG, JPEG, WebP or still GIF.")]


class DrawQuery(SeedQuery):
    """Whether to draw from the posteriors."""

    draw: bool = Field(False, description="Also answer one draw from each posterior.")


class EncodeQuery(DrawQuery, ReadingQuery):
    """How to encode pictures."""


class EncodeRequest(Strict):
    """Pictures to encode."""

    images: list[Base64Image] = Field(
        min_length=1,
        fail_fast=True,
        description="Pictures; each may carry a `data:` prefix.",
        examples=[[EXAMPLE_IMAGE]],
    )


class EncodeResponse(Answer):
    """Posteriors q(z|x), one a picture."""

    mean: LatentList = Field(description="Means of the posteriors.")
    log_std: LatentList | None = Field(
        None, description="Logarithms of their standard deviations; absent where the encoder is deterministic."
    )
    latents: LatentList | None = Field(None, description="One draw from each posterior, with `draw=true`.")
    seed: int | None = Field(None, description="The seed of the draws, with `draw=true`.")


@router.post("/encode", operation_id="encode", responses=BODY_PROBLEMS, response_model_exclude_none=True)
async def encode(server: Server, query: Annotated[EncodeQuery, Query()], body: EncodeRequest) -> EncodeResponse:
    """Posterior mean and log standard deviation of each picture."""
    vae = server.catalog.find(query.model, query.version)
    check_count(len(body.images), server.limits.max_rows, "/images")
    return _json(vae, *await _encode_pictures(server, vae, query, decode_base64(body.images)))


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
    return _json(vae, *await _encode_pictures(server, vae, query, files))


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
    images = images_from_array(read_npy(body), vae, server.limits.max_rows)
    posterior, latents, seed = await _encode(vae, query, images)
    arrays = {"mean": posterior.mean, "log_std": posterior.log_std, "latents": latents}
    return npz(vae, {name: array for name, array in arrays.items() if array is not None}, seed)


Encoded = tuple[Posterior, Floats | None, int | None]
"""Posterior, draws, and the draws' seed."""


async def _encode_pictures(server: State, vae: Vae, query: EncodeQuery, contents: list[bytes]) -> Encoded:
    images = await decode_pictures(server, contents, query.reading(vae, server.limits))
    return await _encode(vae, query, images)


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


def images_from_array(array: NDArray[np.generic], vae: Vae, limit: int) -> Pixels:
    """uint8 `[N, H, W, C]` of an array `[N, H, W]` or `[N, H, W, C]`, uint8 or float in [0, 1].

    Raises:
        InvalidInput: another shape than the model's, too many rows, or floats that are not finite or out of range.
    """
    height, width, channels = vae.image_shape
    if array.ndim == 3:
        array = array[..., None]
    if array.shape[1:] != (height, width, channels):
        grey = f"[N, {height}, {width}] or " if channels == 1 else ""
        raise InvalidInput(f"the array must be {grey}[N, {height}, {width}, {channels}]")
    check_count(len(array), limit, "")
    if array.dtype == np.uint8:
        return array.astype(np.uint8, copy=False)
    floats = array.astype(np.float64)
    if not (np.isfinite(floats).all() and floats.min() >= 0 and floats.max() <= 1):
        raise InvalidInput("a float array must lie in [0, 1]")
    return np.round(floats * 255).astype(np.uint8)
