"""`/decode`: latents to images."""

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Response
from numpy.typing import NDArray
from pydantic import Field

from app.api.answers import PICTURE_TYPES, Images, base64_pictures, documented, npy_images, picture, stamp
from app.api.operation import Operation
from app.api.parameters import NPY_LATENTS, Latent, ModelQuery, PictureQuery, QueryFloat, RawBody, Strict, check_count
from app.api.problems import BODY_PROBLEMS, MODEL_PROBLEMS
from app.api.state import Server
from app.arrays import NPY, read_npy
from app.errors import InvalidInput
from app.gaussian import Floats
from app.images import PictureFormat
from app.vae import Vae

router = APIRouter(tags=["decode"], route_class=Operation)


class DecodeRequest(Strict):
    """Latents to decode."""

    latents: list[Latent] = Field(min_length=1, fail_fast=True, description="Latents of the model's size.")


class DecodeImageQuery(ModelQuery, PictureQuery):
    """How to show decoded latents."""


class DecodeOneQuery(ModelQuery):
    """One latent to decode."""

    latent: list[QueryFloat] = Field(min_length=1, description="The latent, one value each.", examples=[[0.5, -1.2]])
    format: PictureFormat = Field("png", description="The picture's format.")


@router.post("/decode", operation_id="decode", responses=BODY_PROBLEMS)
async def decode(server: Server, query: Annotated[ModelQuery, Query()], body: DecodeRequest) -> Images:
    """The image of each latent: the decoder's mean."""
    vae = server.catalog.find(query.model, query.version)
    latents = check_latents(body.latents, vae, server.limits.max_rows)
    return Images(**stamp(vae), images=await base64_pictures(await vae.decode(latents)))


@router.post(
    "/decode/image",
    operation_id="decode_image",
    response_class=Response,
    responses=BODY_PROBLEMS | documented("The image, or a grid of several.", *PICTURE_TYPES),
)
async def decode_image(server: Server, query: Annotated[DecodeImageQuery, Query()], body: DecodeRequest) -> Response:
    """As `decode`, as one picture."""
    vae = server.catalog.find(query.model, query.version)
    latents = check_latents(body.latents, vae, server.limits.max_rows)
    return await picture(vae, await vae.decode(latents), query.format, query.columns)


@router.get(
    "/decode/image",
    operation_id="decode_one_image",
    response_class=Response,
    responses=MODEL_PROBLEMS | documented("The image.", *PICTURE_TYPES),
)
async def decode_one_image(server: Server, query: Annotated[DecodeOneQuery, Query()]) -> Response:
    """The image of one latent, by a link."""
    vae = server.catalog.find(query.model, query.version)
    latents = check_latents([query.latent], vae, 1, "/query/latent")
    return await picture(vae, await vae.decode(latents), query.format)


@router.post(
    "/decode/npy",
    operation_id="decode_npy",
    openapi_extra=NPY_LATENTS,
    response_class=Response,
    responses=BODY_PROBLEMS | documented("uint8 [N, H, W] or [N, H, W, C].", NPY),
)
async def decode_npy(server: Server, query: Annotated[ModelQuery, Query()], body: RawBody) -> Response:
    """As `decode`, from npy to npy."""
    vae = server.catalog.find(query.model, query.version)
    latents = latents_from_array(read_npy(body), vae, server.limits.max_rows)
    return npy_images(vae, await vae.decode(latents))


def check_latents(latents: list[list[float]], vae: Vae, limit: int, pointer: str = "/latents") -> Floats:
    """Float32 `[N, *latent]` of latents as JSON and queries have them.

    Raises:
        InvalidInput: one of them has another size than the model's; or too many; or beyond float32.
    """
    check_count(len(latents), limit, pointer)
    size = int(np.prod(vae.latent_shape))
    for index, latent in enumerate(latents):
        if len(latent) != size:
            raise InvalidInput(f"this model's latents have {size} values", f"{pointer}/{index}")
    return _finite(np.array(latents, np.float64), pointer)


def latents_from_array(array: NDArray[Any], vae: Vae, limit: int) -> Floats:
    """Float32 `[N, *latent]` of an npy array.

    Raises:
        InvalidInput: not floats, another shape than the model's, too many, not finite or beyond float32.
    """
    if array.dtype.kind != "f":
        raise InvalidInput("latents must be floats")
    if array.shape[1:] != vae.latent_shape:
        raise InvalidInput(f"latents must be [N, {', '.join(map(str, vae.latent_shape))}]")
    check_count(len(array), limit, "")
    return _finite(array)


def _finite(array: NDArray[Any], pointer: str = "") -> Floats:
    with np.errstate(over="ignore"):
        latents = array.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(latents).reshape(len(latents), -1).all(axis=1))
    if len(bad):
        raise InvalidInput("not finite as float32", f"{pointer}/{bad[0]}")
    return np.ascontiguousarray(latents)
