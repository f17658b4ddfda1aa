"""`GET /posteriors`: where held-out images lie in the latent space."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import TypeAliasType

from app.api.forms.route import in_forms
from app.api.forms.writers import ModelResponse, Result
from app.api.operations.manifold import Plane, plane_dims
from app.api.routing.operation import Operation
from app.api.routing.queries import ModelQuery, PercentileQuery
from app.api.routing.state import State
from app.codecs.scatter import SIZE, scatter
from app.errors import InvalidInput
from app.maths.arrays import Floats
from app.vae.vae import Vae

PosteriorSpace = TypeAliasType("PosteriorSpace", Literal["plane", "latent"])


class PlaneQuery(ModelQuery):
    """The number of held-out images, and the latent plane."""

    n: int | None = Field(
        None, ge=1, description="Number of held-out images, from the first; all in the bundle if absent."
    )
    dims: Plane = None


class PosteriorsQuery(PlaneQuery, PercentileQuery):
    """The number of held-out images, and the latent plane or all dimensions."""

    space: PosteriorSpace = Field("plane", description="Two dimensions of each mean, or all of them.")


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
    means, labels = _held_out(vae, query)
    if query.space == "latent" and query.dims is not None:
        raise InvalidInput("leave out dims with space=latent: the response has all dimensions", "/query/dims")
    dims = list(range(vae.geometry.latent_shape[0])) if query.space == "latent" else list(plane_dims(vae, query.dims))
    percentile = vae.mean_percentile(means) if query.percentile else None
    arrays = {"mean": means[:, dims], "labels": labels, "latent_percentile": percentile}
    return Result(arrays=arrays, facts={"dims": dims})


async def _scatter(server: State, vae: Vae, query: PlaneQuery) -> Result:
    """Posterior means of held-out images on a plane, colored by class."""
    (means, labels), dims = _held_out(vae, query), plane_dims(vae, query.dims)
    vae.check_scale((1, SIZE, SIZE, 3))
    names = (f"z{dims[0]}", f"z{dims[1]}")
    image = await vae.computed(3 * SIZE**2, scatter, means[:, list(dims)], labels, names)
    return Result({"images": image[None]})


def _held_out(vae: Vae, query: PlaneQuery) -> tuple[Floats, NDArray[np.int64] | None]:
    """Means `[n, d]` and, if there are classes, labels `[n]` of the first `query.n` held-out posteriors."""
    vae.geometry.dimensions()
    means, labels = vae.tables.held_out_means, vae.tables.held_out_labels
    if means is None:
        raise InvalidInput("this model has no held-out posteriors", "/query/model")
    return means[: query.n], None if labels is None else labels[: query.n]


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
