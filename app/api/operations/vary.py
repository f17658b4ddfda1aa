"""`POST /vary`: images near a given one."""

from pydantic import Field

from app.api.forms.readers import ONE_IMAGE_READERS
from app.api.forms.route import in_forms
from app.api.forms.writers import Result, SeededImages, latent_images
from app.api.routing.operation import Operation
from app.api.routing.queries import PercentileQuery, QueryFloat, SeedQuery, check_count
from app.api.routing.state import State
from app.codecs.images import Pixels
from app.vae.vae import Vae


class VaryQuery(SeedQuery, PercentileQuery):
    """Number of images, and their distance from the given one."""

    n: int = Field(16, ge=1, description="Number of images; at most `VAE_MAX_ROWS`.")
    radius: QueryFloat = Field(
        1.0, ge=0, le=100, description="Factor of the posterior's standard deviation; 1 draws from the posterior."
    )


async def _vary(server: State, vae: Vae, query: VaryQuery, images: Pixels) -> Result:
    """Draws around the posterior of one image, decoded: z = mean + radius * std * eps, eps ~ N(0, I)."""
    check_count(query.n, server.limits.max_rows, "/query/n")
    seed = query.seed_or_new()
    return latent_images(await vae.vary(images, query.n, query.radius, seed, percentile=query.percentile), seed=seed)


OPERATIONS = in_forms(
    Operation(
        path="/vary",
        query=VaryQuery,
        compute=_vary,
        answer=SeededImages,
    ),
    {"": ("json", "json"), "/image": ("json", "grid")},
    ONE_IMAGE_READERS,
)
