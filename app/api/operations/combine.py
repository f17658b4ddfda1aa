"""`POST /combine`: latent arithmetic."""

import numpy as np
from pydantic import ConfigDict, Field

from app.api.forms.bodies import JsonFloat
from app.api.forms.images import EXAMPLE_IMAGE
from app.api.forms.latents import PictureQuery, Point, read_points
from app.api.forms.readers import json_readers
from app.api.forms.route import in_forms
from app.api.forms.writers import LatentImages, Result, latent_images
from app.api.routing.operation import Operation
from app.api.routing.queries import Strict
from app.api.routing.state import State
from app.vae.vae import Vae


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


OPERATIONS = in_forms(
    Operation(
        path="/combine",
        operation_id="combine",
        tag="combine",
        query=PictureQuery,
        compute=_combine,
        answer=LatentImages,
    ),
    {"": ("json", "json"), "/image": ("json", "image")},
    json_readers(CombineRequest),
)
