"""`POST /combine`: latent arithmetic."""

import numpy as np
from fastapi import APIRouter
from pydantic import ConfigDict, Field

from app.api.forms.latents import PictureQuery, Point, read_points
from app.api.forms.pictures import EXAMPLE_IMAGE
from app.api.forms.readers import json_of
from app.api.forms.route import offer
from app.api.forms.writers import LatentImages, Result, latent_images
from app.api.routing.operation import Operation
from app.api.routing.queries import JsonFloat, Strict
from app.api.routing.state import State
from app.vae.vae import Vae

router = APIRouter(tags=["combine"], route_class=Operation)


class Term(Point):
    """A weight, and exactly one of an image, a latent and a label."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 2, "maxProperties": 2})

    weight: JsonFloat = Field(description="What the latent counts; negative to take it away.", examples=[1.0])


class CombineRequest(Strict):
    """The terms of the sum."""

    terms: list[Term] = Field(
        min_length=1,
        max_length=64,
        description="Their latents are added up by weight. Weights that add up to 1 stay among the points.",
        examples=[[{"weight": 1.0, "image": EXAMPLE_IMAGE}, {"weight": -1.0, "label": 3}, {"weight": 1.0, "label": 8}]],
    )


async def _combine(server: State, vae: Vae, query: PictureQuery, body: CombineRequest) -> Result:
    """The sum of weighted latents, and the image that it decodes to: z = sum of weight_i * z_i."""
    vae.check_admission("decoder", 1)
    points = await read_points(server, vae, query, body.terms, "/terms")
    weights = np.array([term.weight for term in body.terms])
    return latent_images(await vae.combine(points, weights, percentile=query.percentile))


offer(
    router,
    "/combine",
    _combine,
    query=PictureQuery,
    reads=json_of(CombineRequest),
    answer=LatentImages,
    forms={"": ("json", "json"), "/image": ("json", "picture")},
)
