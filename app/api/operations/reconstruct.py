"""`POST /reconstruct`: images encoded and decoded."""

from pydantic import Field

from app.api.forms.readers import IMAGE_READERS
from app.api.forms.route import IMAGES_TO_IMAGES, in_forms
from app.api.forms.writers import Images, Result
from app.api.routing.operation import Operation
from app.api.routing.queries import SeedQuery
from app.api.routing.state import State
from app.codecs.images import Pixels
from app.vae.vae import PREDICTIVE_DRAWS, ReconstructMode, Vae


class ReconstructQuery(SeedQuery):
    """The latent that an image is decoded from, and the seed."""

    mode: ReconstructMode = Field(
        "mean",
        description="The posterior's mean, one draw from it, or the posterior predictive: the average of 32 draws.",
    )


class ReconstructResponse(Images):
    """Reconstructions, in the order of the images."""

    seed: int | None = Field(None, description="The seed of the draws; absent with `mode=mean`, which has none.")


async def _reconstruct(server: State, vae: Vae, query: ReconstructQuery, images: Pixels) -> Result:
    """Each image, encoded and decoded."""
    seed = query.seed_or_new()
    reconstructed = await vae.reconstruct(images, query.mode, seed)
    return Result({"images": reconstructed}, facts={} if query.mode == "mean" else {"seed": seed})


OPERATIONS = in_forms(
    Operation(
        path="/reconstruct",
        query=ReconstructQuery,
        compute=_reconstruct,
        answer=ReconstructResponse,
        min_rows=lambda query: ("decoder", PREDICTIVE_DRAWS if query.mode == "predictive" else 1),
    ),
    IMAGES_TO_IMAGES,
    IMAGE_READERS,
)
