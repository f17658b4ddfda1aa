"""`GET /sample`: images that the model makes up."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import Field

from app.api.answers import (
    PICTURE_TYPES,
    LatentImages,
    base64_pictures,
    documented,
    nested,
    npy_images,
    picture,
    stamp,
)
from app.api.operation import Operation
from app.api.parameters import PictureQuery, QueryFloat, SeedQuery, check_count
from app.api.problems import MODEL_PROBLEMS
from app.api.state import Server, State
from app.arrays import NPY
from app.gaussian import Floats
from app.images import Pixels
from app.vae import Source, Vae

router = APIRouter(tags=["sample"], route_class=Operation)


class SampleQuery(SeedQuery):
    """What to draw."""

    n: int = Field(1, ge=1, description="How many; at most `VAE_MAX_ROWS`.")
    temperature: QueryFloat = Field(
        1.0, ge=0, le=100, description="Scales the draws; within a component for aggregate."
    )
    truncation: QueryFloat | None = Field(None, ge=0.1, description="Redraws components beyond this, before scaling.")
    source: Source = Field("prior", description="The prior N(0, I), or the mixture fitted to the aggregated posterior.")
    label: int | None = Field(None, ge=0, description="Only this class; for `aggregate`.")


class SampleImageQuery(SampleQuery, PictureQuery):
    """What to draw, and how to show it."""


class SampleResponse(LatentImages):
    """Samples, their latents and their seed."""

    seed: int = Field(description="The seed of the draws.")


@router.get("/sample", operation_id="sample", responses=MODEL_PROBLEMS)
async def sample(server: Server, query: Annotated[SampleQuery, Query()]) -> SampleResponse:
    """Draw latents and decode them."""
    vae, seed, latents, images = await _sample(server, query)
    return SampleResponse(**stamp(vae), seed=seed, latents=nested(latents), images=await base64_pictures(images))


@router.get(
    "/sample/image",
    operation_id="sample_image",
    response_class=Response,
    responses=MODEL_PROBLEMS | documented("The sample, or a grid of several.", *PICTURE_TYPES, seeded=True),
)
async def sample_image(server: Server, query: Annotated[SampleImageQuery, Query()]) -> Response:
    """As `sample`, as one picture."""
    vae, seed, _, images = await _sample(server, query)
    return await picture(vae, images, query.format, query.columns, seed)


@router.get(
    "/sample/npy",
    operation_id="sample_npy",
    response_class=Response,
    responses=MODEL_PROBLEMS | documented("uint8 [N, H, W] or [N, H, W, C].", NPY, seeded=True),
)
async def sample_npy(server: Server, query: Annotated[SampleQuery, Query()]) -> Response:
    """As `sample`, as an npy array."""
    vae, seed, _, images = await _sample(server, query)
    return npy_images(vae, images, seed)


async def _sample(server: State, query: SampleQuery) -> tuple[Vae, int, Floats, Pixels]:
    vae = server.catalog.find(query.model, query.version)
    check_count(query.n, server.limits.max_rows, "/query/n")
    seed = query.seed_or_new()
    latents = vae.sample(
        seed,
        query.n,
        temperature=query.temperature,
        truncation=query.truncation,
        source=query.source,
        label=query.label,
    )
    return vae, seed, latents, await vae.decode(latents)
