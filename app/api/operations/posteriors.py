"""`GET /posteriors`: where held-out images lie in the latent space."""

import asyncio
from typing import Literal

from pydantic import Field

from app.api.forms.route import in_forms
from app.api.forms.writers import ModelResponse, Result
from app.api.operations.manifold import Plane, plane_dims
from app.api.routing.operation import Operation
from app.api.routing.queries import ModelQuery, PercentileQuery
from app.api.routing.state import State
from app.bundle.arrays import HeldOut
from app.codecs.scatter import scatter
from app.errors import InvalidInput
from app.vae.vae import Vae


class PlaneQuery(ModelQuery):
    """The number of held-out images, and the latent plane."""

    n: int | None = Field(
        None, ge=1, description="Number of held-out images, from the first; all in the bundle if absent."
    )
    dims: Plane = None


class PosteriorsQuery(PlaneQuery, PercentileQuery):
    """The number of held-out images, and the latent plane or all dimensions."""

    space: Literal["plane", "latent"] = Field("plane", description="Two dimensions of each mean, or all of them.")


class PosteriorsResponse(ModelResponse):
    """Posterior means of held-out images, which the model was not trained on."""

    dims: list[int] = Field(description="The latent dimensions of the columns of `mean`.")
    mean: list[list[float]] = Field(description="Means of the posteriors q(z|x).")
    labels: list[int] | None = Field(None, description="The images' classes, if the data set has classes.")
    latent_percentile: list[float] | None = Field(
        None,
        description="With `percentile=true`: percentage of held-out images whose posterior mean, in all dimensions, is"
        " nearer to the origin.",
    )


async def _posteriors(server: State, vae: Vae, query: PosteriorsQuery) -> Result:
    """Posterior means of held-out images, evenly spread over the test split and in its order, with their classes."""
    held_out = _held_out(vae, query)
    if query.space == "latent" and query.dims is not None:
        raise InvalidInput("leave out dims with space=latent: the response has all dimensions", "/query/dims")
    dims = list(range(vae.geometry.latent_shape[0])) if query.space == "latent" else list(plane_dims(vae, query.dims))
    percentile = vae.mean_percentile(held_out.means) if query.percentile else None
    arrays = {"mean": held_out.means[:, dims], "labels": held_out.labels, "latent_percentile": percentile}
    return Result(arrays=arrays, facts={"dims": dims})


async def _scatter(server: State, vae: Vae, query: PlaneQuery) -> Result:
    """Posterior means of held-out images on a plane, colored by class."""
    held_out, dims = _held_out(vae, query), plane_dims(vae, query.dims)
    names = (f"z{dims[0]}", f"z{dims[1]}")
    image = await asyncio.to_thread(scatter, held_out.means[:, list(dims)], held_out.labels, names)
    return Result({"images": image[None]})


def _held_out(vae: Vae, query: PlaneQuery) -> HeldOut:
    """The first `query.n` held-out posteriors of the bundle."""
    vae.geometry.dimensions()
    held_out = vae.tables.held_out
    if held_out is None:
        raise InvalidInput("this model has no held-out posteriors", "/query/model")
    labels = None if held_out.labels is None else held_out.labels[: query.n]
    return HeldOut(held_out.means[: query.n], labels)


OPERATIONS = (
    *in_forms(
        Operation(
            path="/posteriors",
            query=PosteriorsQuery,
            compute=_posteriors,
            answer=PosteriorsResponse,
        ),
        {"": (None, "json")},
    ),
    *in_forms(
        Operation(
            path="/posteriors",
            query=PlaneQuery,
            compute=_scatter,
        ),
        {"/image": (None, "image")},
    ),
)
