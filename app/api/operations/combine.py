"""`POST /combine`: latent arithmetic."""

import numpy as np
from pydantic import ConfigDict, Field

from app.api.forms.bodies import JsonBody, JsonFloat
from app.api.forms.images import EXAMPLE_IMAGE
from app.api.forms.latents import Point, PointsQuery, ShapedRequest, read_points
from app.api.forms.route import in_forms
from app.api.forms.writers import LatentImages, Result, latent_images
from app.api.routing.operation import Operation, Reader
from app.api.routing.state import State
from app.vae.vae import Vae


class Term(Point):
    """A weight, and exactly one of an image, a latent and a label."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 2, "maxProperties": 2})

    weight: JsonFloat = Field(description="Factor of the latent; negative to subtract it.", examples=[1.0])


class CombineRequest(ShapedRequest):
    """The terms of a weighted sum of latents."""

    terms: list[Term] = Field(
        min_length=1,
        max_length=64,
        description="Terms of the weighted sum. If the weights add up to 1, the sum stays near the points.",
        examples=[[{"weight": 1.0, "image": EXAMPLE_IMAGE}, {"weight": -1.0, "label": 3}, {"weight": 1.0, "label": 8}]],
    )


async def _combine(server: State, vae: Vae, query: PointsQuery, body: CombineRequest) -> Result:
    """The sum of weighted latents, and the image that it decodes to: z = sum of weight_i * z_i."""
    vae.check_admission("decoder", 1)
    points = await read_points(server, vae, query, body, body.terms, "/terms")
    weights = np.array([term.weight for term in body.terms])
    return latent_images(await vae.combine(points, weights, percentile=query.percentile))


OPERATIONS = in_forms(
    Operation(
        path="/combine",
        query=PointsQuery,
        compute=_combine,
        answer=LatentImages,
    ),
    {"": ("json", "json"), "/image": ("json", "image")},
    {"json": Reader(JsonBody(CombineRequest))},
)
