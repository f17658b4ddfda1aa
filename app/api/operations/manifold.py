"""`GET /manifold/image`: the latent plane as an image."""

from typing import Annotated

from pydantic import Field

from app.api.forms.route import in_forms
from app.api.forms.writers import Result
from app.api.routing.operation import Operation
from app.api.routing.queries import ModelQuery, check_count
from app.api.routing.state import State
from app.errors import InvalidInput
from app.maths.gaussian import manifold_grid
from app.vae.vae import Vae

Plane = Annotated[
    Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2)] | None,
    Field(description="Two latent dimensions, across and up; the two of highest KL if absent."),
]


class ManifoldQuery(ModelQuery):
    """The latent plane, and the size of the grid."""

    n: int = Field(20, ge=1, description="Images along each side; at most `VAE_MAX_MANIFOLD`.")
    dims: Plane = None


async def _manifold(server: State, vae: Vae, query: ManifoldQuery) -> Result:
    """Decode an even grid of the prior's quantiles from 0.05 to 0.95; the second dimension is largest at the top."""
    check_count(query.n, server.limits.max_manifold, "/query/n")
    vae.check_prior()
    dims = plane_dims(vae, query.dims)
    return Result({"images": await vae.decode(vae.plane(manifold_grid(query.n), dims))}, columns=query.n)


def plane_dims(vae: Vae, dims: list[int] | None) -> tuple[int, int]:
    """The two latent dimensions of a plane: `dims`, or the two of highest KL if it is None.

    Raises:
        InvalidInput: `dims` are not two different dimensions of this model.
    """
    main = vae.main_dims()
    if dims is None:
        return main
    (first, second), size = dims, vae.geometry.latent_shape[0]
    if first == second or max(dims) >= size:
        raise InvalidInput(f"must be two different dimensions of 0 to {size - 1}", "/query/dims")
    return first, second


OPERATIONS = in_forms(
    Operation(
        path="/manifold",
        query=ManifoldQuery,
        compute=_manifold,
    ),
    {"/image": (None, "image")},
)
