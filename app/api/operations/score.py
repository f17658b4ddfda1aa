"""`POST /score`: how well the model explains images."""

from dataclasses import asdict

import numpy as np
from pydantic import Field

from app.api.forms.readers import IMAGE_READERS
from app.api.forms.route import IMAGES_TO_ARRAYS, in_forms
from app.api.forms.writers import ModelResponse, Result
from app.api.routing.operation import Operation
from app.api.routing.queries import SeedQuery
from app.api.routing.state import State
from app.codecs.images import Pixels
from app.errors import InvalidInput
from app.maths.bounds import Binarize
from app.maths.gaussian import Floats
from app.vae.vae import Vae


class ScoreQuery(SeedQuery):
    """Number of draws, binarization and explanation."""

    k: int = Field(
        16,
        ge=1,
        description="Number of draws per image; more make `log_likelihood` a tighter bound. k times the number of"
        " images is at most `VAE_MAX_DRAWS`.",
    )
    binarize: Binarize | None = Field(
        None,
        description="How gray pixels become binary: by a seeded draw, by a threshold, or not at all, for images of only"
        " 0 and 255; as in the model's training if absent.",
    )
    explain: bool = Field(False, description="Also return each pixel's part of `reconstruction`, as an image.")


class ScoreResponse(ModelResponse):
    """Scores in nats, one per image, in the order of the images."""

    k: int = Field(description="Number of draws per image.")
    binarize: Binarize = Field(description="How gray pixels became binary.")
    seed: int = Field(description="The seed of the draws.")
    elbo: list[float] = Field(description="-(reconstruction + kl), a bound on log p(x); higher is better.")
    log_likelihood: list[float] = Field(description="IWAE-k bound on log p(x), tighter than `elbo`; higher is better.")
    reconstruction: list[float] = Field(description="-log p(x|z), averaged over the draws.")
    kl: list[float] = Field(description="KL(q(z|x) || N(0, I)).")
    kl_per_dimension: list[list[float]] = Field(description="`kl` of each latent dimension.")
    effective_sample_size: list[float] = Field(
        description="Effective sample size of the importance weights, from 1 to k."
    )
    score_percentile: list[float] | None = Field(
        None,
        description="Percentage of held-out images with a lower `log_likelihood`; absent if the bundle has no"
        " calibration for this k and binarization.",
    )
    explanation: list[str] | None = Field(
        None,
        description="With `explain=true`: base64 PNG of -log p(x_i|z) of each pixel, averaged over the draws; white is"
        " least likely under the model.",
    )
    explanation_nats: list[list[float]] | None = Field(
        None, description="The nats of black and white in each `explanation`, `[low, high]`."
    )


async def _score(server: State, vae: Vae, query: ScoreQuery, images: Pixels) -> Result:
    """ELBO, IWAE bound and their parts of each image, its percentile among held-out images, and its unlikely pixels."""
    if query.k * len(images) > server.limits.max_draws:
        raise InvalidInput(f"k times the number of images is at most {server.limits.max_draws}", "/query/k")
    seed = query.seed_or_new()
    scores, how = await vae.score(images, k=query.k, seed=seed, how=query.binarize, explain=query.explain)
    arrays, facts = asdict(scores), {"k": query.k, "binarize": how, "seed": seed}
    explanation = arrays.pop("explanation")
    if explanation is None:
        return Result(arrays=arrays, facts=facts)
    pixels, nats = _heatmaps(explanation)
    return Result({"explanation": pixels}, arrays | {"explanation_nats": nats}, facts)


def _heatmaps(explanation: Floats) -> tuple[Pixels, Floats]:
    """Gray images `[N, H, W, 1]` of terms `[N, H, W]` in nats, and the nats `[N, 2]` of black and white."""
    low = np.minimum(explanation.min(axis=(1, 2)), 0)
    high = explanation.max(axis=(1, 2))
    scale = np.where(high > low, 255 / np.where(high > low, high - low, 1), 0)
    pixels = np.round((explanation - low[:, None, None]) * scale[:, None, None]).astype(np.uint8)
    return pixels[..., None], np.stack([low, high], axis=1)


OPERATIONS = in_forms(
    Operation(
        path="/score",
        query=ScoreQuery,
        compute=_score,
        answer=ScoreResponse,
        min_rows=lambda query: ("explain" if query.explain else "score", query.k),
    ),
    IMAGES_TO_ARRAYS,
    IMAGE_READERS,
)
