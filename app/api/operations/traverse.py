"""`GET /traverse`: images along single latent dimensions, or along a stored direction."""

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from app.api.forms.route import in_forms
from app.api.forms.writers import LatentImages, Result, latent_images
from app.api.routing.operation import Operation
from app.api.routing.queries import ModelQuery, PercentileQuery, QueryFloat, Seed
from app.api.routing.state import State
from app.codecs.decimals import listed
from app.errors import InvalidInput
from app.maths.gaussian import Floats
from app.vae.vae import Vae

_DEFAULT_DIMS = 10
"""Number of dimensions if the request names none."""


class TraverseQuery(ModelQuery, PercentileQuery):
    """The start, the directions, and the steps along them."""

    dims: list[Annotated[int, Field(ge=0)]] | None = Field(
        None, description="Latent dimensions, one row each; at most 10 of highest KL if absent."
    )
    direction: int | None = Field(
        None, ge=0, description="Index of a stored principal axis, by decreasing variance; in place of `dims`."
    )
    steps: int = Field(11, ge=2, description="Number of images per row; at most `VAE_MAX_STEPS`.")
    extent: QueryFloat = Field(
        3.0,
        gt=0,
        le=100,
        description="A row runs from minus this to plus this; in standard deviations for `direction`.",
    )
    seed: Seed | None = Field(None, description="Seed of a prior draw to start from; start from the origin if absent.")
    label: int | None = Field(None, ge=0, description="Start from the mean of this class.")


class TraverseResponse(LatentImages):
    """Images and latents, row by row."""

    values: list[float] = Field(description="Values of the dimension, or positions on the direction, along a row.")
    dims: list[int] | None = Field(None, description="The dimension of each row.")
    direction: int | None = Field(None, description="The stored direction.")
    seed: int | None = Field(None, description="The seed of the start, if it is a draw.")
    label: int | None = Field(None, description="The class of the start, if it is a class mean.")


async def _traverse(server: State, vae: Vae, query: TraverseQuery) -> Result:
    """Vary one latent dimension at a time in even steps from -extent to extent, or follow a stored direction."""
    limit = min(server.limits.max_steps, server.limits.max_rows)
    if query.steps > limit:
        raise InvalidInput(f"must be 2 to {limit}", "/query/steps")
    vae.geometry.dimensions()
    values, base = np.linspace(-query.extent, query.extent, query.steps, dtype=np.float32), await _base(vae, query)
    facts: dict[str, Any] = {"values": listed(values), "seed": query.seed, "label": query.label}
    if query.direction is None:
        facts["dims"] = dims = _dims(server, vae, query)
        latents = vae.traverse(base, dims, values)
    elif query.dims is None:
        facts["direction"] = query.direction
        latents = base + values[:, None] * vae.tables.direction(query.direction, "/query/direction")
    else:
        raise InvalidInput("give dims or a direction", "/query/direction")
    decoded = await vae.decode_latents(latents, percentile=query.percentile)
    return latent_images(decoded, columns=query.steps, **facts)


async def _base(vae: Vae, query: TraverseQuery) -> Floats:
    """The start, `[d]`: the origin, a draw from the prior or a class mean."""
    if query.seed is not None and query.label is not None:
        raise InvalidInput("give seed or label: start from a draw or from a class mean", "/query/label")
    if query.label is not None:
        return vae.tables.label_mean(query.label, "/query/label")
    shape = vae.geometry.latent_shape
    return np.zeros(shape, np.float32) if query.seed is None else (await vae.sample_prior(query.seed, 1))[0]


def _dims(server: State, vae: Vae, query: TraverseQuery) -> list[int]:
    """The latent dimensions, one row each."""
    size = vae.geometry.dimensions()
    max_dims = server.limits.max_rows // query.steps
    if query.dims is None:
        return vae.dims_by_kl()[: min(_DEFAULT_DIMS, max_dims)]
    if max(query.dims) >= size:
        raise InvalidInput(f"dimensions are 0 to {size - 1}", "/query/dims")
    if len(query.dims) > max_dims:
        raise InvalidInput(f"at most {max_dims} with this many steps each", "/query/dims")
    return query.dims


OPERATIONS = in_forms(
    Operation(
        path="/traverse",
        query=TraverseQuery,
        compute=_traverse,
        answer=TraverseResponse,
    ),
    {"": (None, "json"), "/image": (None, "grid")},
)
