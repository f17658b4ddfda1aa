"""`POST /interpolate`: a path through the latent space, from one point to another."""

from typing import Annotated, Literal

from pydantic import Field

from app.api.forms.bodies import JSON_INT, JsonBody
from app.api.forms.images import EXAMPLE_IMAGE
from app.api.forms.latents import Point, PointsQuery, ShapedRequest, read_points
from app.api.forms.route import in_forms
from app.api.forms.writers import LatentImages, Result, latent_images
from app.api.routing.operation import Operation, Reader
from app.api.routing.state import State
from app.errors import InvalidInput
from app.vae.vae import InterpolateMethod, Vae


class InterpolateRequest(ShapedRequest):
    """The points to visit, in order."""

    points: list[Point] = Field(min_length=2, max_length=16, examples=[[{"image": EXAMPLE_IMAGE}, {"label": 3}]])
    steps: Annotated[int, Field(ge=2), JSON_INT] = Field(
        10, description="Images from each point to the next, both included; at most `VAE_MAX_STEPS`."
    )
    method: InterpolateMethod = Field(
        "auto", description="`auto`: slerp if all points are latents of more than 2 dimensions, else lerp."
    )


class InterpolateResponse(LatentImages):
    """The images and latents of the path, and the method."""

    method: Literal["lerp", "slerp"] = Field(description="The method that was used.")


async def _interpolate(server: State, vae: Vae, query: PointsQuery, body: InterpolateRequest) -> Result:
    """(P - 1) * (steps - 1) + 1 images on a path through P points."""
    if body.steps > server.limits.max_steps:
        raise InvalidInput(f"must be 2 to {server.limits.max_steps}", "/steps")
    vae.check_admission("decoder", (len(body.points) - 1) * (body.steps - 1) + 1)
    points = await read_points(server, vae, query, body, body.points)
    decoded, method = await vae.interpolate(points, body.steps, body.method, percentile=query.percentile)
    return latent_images(decoded, method=method)


OPERATIONS = in_forms(
    Operation(
        path="/interpolate",
        query=PointsQuery,
        compute=_interpolate,
        answer=InterpolateResponse,
    ),
    {"": ("json", "json"), "/image": ("json", "animation")},
    {"json": Reader(JsonBody(InterpolateRequest))},
)
