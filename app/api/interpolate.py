"""`POST /interpolate`: a path through the latent space, from one point to another."""

from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query, Response
from pydantic import Field, model_validator

from app.api.answers import (
    LatentImages,
    animation,
    base64_pictures,
    documented,
    nested,
    picture,
    stamp,
)
from app.api.decode import check_latents
from app.api.operation import Operation
from app.api.parameters import JsonInt, Latent, ModelQuery, Strict
from app.api.pictures import EXAMPLE_IMAGE, Base64Image, ReadingQuery, decode_base64, decode_pictures
from app.api.problems import BODY_PROBLEMS
from app.api.state import Server, State
from app.errors import InvalidInput
from app.gaussian import Floats
from app.images import AnimationFormat, Pixels
from app.vae import Method, Vae

router = APIRouter(tags=["interpolate"], route_class=Operation)


class InterpolateQuery(ModelQuery, ReadingQuery):
    """Which model answers, and how it reads pictures."""


class InterpolateImageQuery(InterpolateQuery):
    """How to show the path."""

    format: AnimationFormat = Field("png", description="A strip (png), or an animation (gif, webp).")
    duration: int = Field(80, ge=20, le=10_000, description="Milliseconds a frame of an animation.")


class Point(Strict):
    """Exactly one of an image, a latent and a label."""

    image: Base64Image | None = Field(None, examples=[EXAMPLE_IMAGE])
    latent: Latent | None = None
    label: JsonInt | None = Field(None, description="The mean of this class.")

    @model_validator(mode="after")
    def _exactly_one(self) -> "Point":
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("a point is exactly one of image, latent and label")
        return self


class InterpolateRequest(Strict):
    """The points to visit, in order."""

    points: list[Point] = Field(min_length=2, max_length=16, examples=[[{"image": EXAMPLE_IMAGE}, {"label": 3}]])
    steps: Annotated[JsonInt, Field(ge=2)] = Field(
        10, description="Pictures from each point to the next, both included; at most `VAE_MAX_STEPS`."
    )
    method: Method = Field("auto", description="`auto`: slerp through given latents of d > 2, else lerp.")


class InterpolateResponse(LatentImages):
    """The path's pictures and latents, and how it runs."""

    method: Literal["lerp", "slerp"] = Field(description="The method that was used.")


@router.post("/interpolate", operation_id="interpolate", responses=BODY_PROBLEMS)
async def interpolate(
    server: Server, query: Annotated[InterpolateQuery, Query()], body: InterpolateRequest
) -> InterpolateResponse:
    """(P - 1) * (steps - 1) + 1 pictures on the way through P points."""
    vae, latents, images, method = await _interpolate(server, query, body)
    return InterpolateResponse(
        **stamp(vae), method=method, latents=nested(latents), images=await base64_pictures(images)
    )


@router.post(
    "/interpolate/image",
    operation_id="interpolate_image",
    response_class=Response,
    responses=BODY_PROBLEMS | documented("A strip, or an animation.", "image/png", "image/gif", "image/webp"),
)
async def interpolate_image(
    server: Server, query: Annotated[InterpolateImageQuery, Query()], body: InterpolateRequest
) -> Response:
    """As `interpolate`, as a strip or an animation."""
    vae, _, images, _ = await _interpolate(server, query, body)
    if query.format == "png":
        return await picture(vae, images, "png", columns=len(images))
    return await animation(vae, images, query.format, query.duration)


async def _interpolate(
    server: State, query: InterpolateQuery, body: InterpolateRequest
) -> tuple[Vae, Floats, Pixels, Literal["lerp", "slerp"]]:
    vae = server.catalog.find(query.model, query.version)
    if body.steps > server.limits.max_steps:
        raise InvalidInput(f"must be 2 to {server.limits.max_steps}", "/steps")
    points = await _locate(server, vae, query, body.points)
    all_given = all(point.latent is not None for point in body.points)
    latents, method = vae.interpolate(points, body.steps, body.method, all_given=all_given)
    return vae, latents, await vae.decode(latents), method


async def _locate(server: State, vae: Vae, query: InterpolateQuery, points: list[Point]) -> Floats:
    """Latents `[P, *latent]` of the points: posterior means of images, class means, or as given."""
    located = np.empty((len(points), *vae.latent_shape), np.float32)
    pictured = [index for index, point in enumerate(points) if point.image is not None]
    for index, point in enumerate(points):
        try:
            if point.latent is not None:
                located[index] = check_latents([point.latent], vae, 1, "")[0]
            elif point.label is not None:
                located[index] = vae.label_mean(point.label)
        except InvalidInput as error:
            member = "label" if point.latent is None else "latent"
            raise InvalidInput(error.detail, f"/points/{index}/{member}") from None
    if pictured:
        images = await _read_points(server, vae, query, points, pictured)
        located[pictured] = (await vae.encode(images)).mean
    return located


async def _read_points(
    server: State, vae: Vae, query: InterpolateQuery, points: list[Point], pictured: list[int]
) -> Pixels:
    """Images `[len(pictured), H, W, C]` of the points that are pictures; an error points at its point."""
    texts = [points[index].image or "" for index in pictured]
    try:
        return await decode_pictures(server, decode_base64(texts, ""), query.reading(vae, server.limits), "")
    except InvalidInput as error:
        index = pictured[int(error.pointer.removeprefix("/"))]
        raise InvalidInput(error.detail, f"/points/{index}/image") from None
