"""`POST /encode`: images to posteriors."""

from typing import Any

from pydantic import Field

from app.api.forms.readers import IMAGE_READERS
from app.api.forms.route import IMAGES_TO_ARRAYS, in_forms
from app.api.forms.writers import LatentShape, ModelResponse, Result
from app.api.routing.operation import Operation
from app.api.routing.queries import PercentileQuery, SeedQuery
from app.api.routing.state import State
from app.codecs.images import Pixels
from app.vae.vae import Vae


class EncodeQuery(SeedQuery, PercentileQuery):
    """Whether to draw from the posteriors."""

    draw: bool = Field(False, description="Also return one draw from each posterior.")


class EncodeResponse(ModelResponse):
    """Posteriors q(z|x), one per image."""

    mean: list[list[float]] = Field(description="Means of the posteriors.")
    log_std: list[list[float]] | None = Field(
        None, description="Logarithms of the posteriors' standard deviations; absent if the encoder is deterministic."
    )
    latent_shape: LatentShape = None
    latent_percentile: list[float] | None = Field(
        None,
        description="With `percentile=true`: percentage of held-out images whose posterior mean is nearer to the origin"
        " than each of `mean`.",
    )
    latents: list[list[float]] | None = Field(None, description="One draw from each posterior, with `draw=true`.")
    draw_percentile: list[float] | None = Field(
        None,
        description="With `percentile=true` and `draw=true`: percentage of prior draws that are nearer to the origin"
        " than each of `latents`.",
    )
    seed: int | None = Field(None, description="The seed of the draws, with `draw=true`.")


async def _encode(server: State, vae: Vae, query: EncodeQuery, images: Pixels) -> Result:
    """Posterior mean and log standard deviation of each image."""
    posterior = await vae.encode(images)
    arrays: dict[str, Any] = {"mean": posterior.mean, "log_std": posterior.log_std}
    facts = {}
    if query.percentile:
        arrays["latent_percentile"] = vae.mean_percentile(posterior.mean)
    if query.draw:
        facts["seed"] = query.seed_or_new()
        arrays["latents"] = await vae.draw(posterior, facts["seed"])
        arrays["draw_percentile"] = vae.latent_percentile(arrays["latents"]) if query.percentile else None
    return Result(arrays=arrays, facts=facts)


OPERATIONS = in_forms(
    Operation(
        path="/encode",
        query=EncodeQuery,
        compute=_encode,
        answer=EncodeResponse,
        min_rows=lambda query: ("encoder", 1),
    ),
    IMAGES_TO_ARRAYS,
    IMAGE_READERS,
)
