"""`GET /sample`: new images, from the prior or the aggregated posterior."""

from pydantic import Field

from app.api.forms.route import in_forms
from app.api.forms.writers import Result, SeededImages, latent_images
from app.api.routing.operation import Operation
from app.api.routing.queries import PercentileQuery, QueryFloat, SeedQuery, check_count
from app.api.routing.state import State
from app.errors import InvalidInput
from app.vae.vae import SampleSource, Vae


class SampleQuery(SeedQuery, PercentileQuery):
    """Number and distribution of the draws."""

    n: int = Field(1, ge=1, description="Number of images; at most `VAE_MAX_ROWS`.")
    temperature: QueryFloat = Field(
        1.0, ge=0, le=100, description="Scales the draws; with `source=aggregate`, within a mixture component."
    )
    truncation: QueryFloat | None = Field(
        None, ge=0.1, description="Redraw values whose absolute value is above this, before scaling."
    )
    source: SampleSource = Field(
        "prior", description="The prior N(0, I), or the mixture fitted to the aggregated posterior."
    )
    label: int | None = Field(None, ge=0, description="Draw only from this class; requires `source=aggregate`.")
    height: int | None = Field(
        None,
        ge=1,
        description="Height of the images in pixels, a multiple of the model's stride; needed if the model has no fixed"
        " size.",
    )
    width: int | None = Field(None, ge=1, description="Width of the images in pixels, see `height`.")


async def _sample(server: State, vae: Vae, query: SampleQuery) -> Result:
    """Draw latents and decode them."""
    check_count(query.n, server.limits.max_rows, "/query/n")
    size, seed = vae.geometry.size_asked(query.height, query.width), query.seed_or_new()
    if query.source == "aggregate":
        latents = vae.sample_aggregate(
            seed, query.n, temperature=query.temperature, truncation=query.truncation, label=query.label
        )
    elif query.label is not None:
        raise InvalidInput("label needs source=aggregate: the prior has no labels", "/query/label")
    else:
        latents = await vae.sample_prior(
            seed, query.n, size=size, temperature=query.temperature, truncation=query.truncation
        )
    return latent_images(await vae.decode_latents(latents, percentile=query.percentile), seed=seed)


_FORMS = {
    "": (None, "json"),
    "/image": (None, "grid"),
    "/npy": (None, "npy"),
    "/safetensors": (None, "safetensors"),
}
OPERATIONS = in_forms(
    Operation(
        path="/sample",
        query=SampleQuery,
        compute=_sample,
        answer=SeededImages,
    ),
    _FORMS,
)
