"""`POST /score`: how well the model explains images."""

from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Response
from pydantic import Field

from app.api.answers import Answer, documented, npz, stamp
from app.api.operation import Operation
from app.api.parameters import IMAGE_FILES, NPY_IMAGES, ImageFiles, RawBody, SeedQuery
from app.api.pictures import PicturesRequest, ReadingQuery, images_of_array, images_of_files, images_of_json
from app.api.problems import BODY_PROBLEMS
from app.api.state import Server, State
from app.arrays import NPZ
from app.errors import InvalidInput
from app.images import Pixels
from app.score import Binarize, Scores
from app.vae import Vae

router = APIRouter(tags=["score"], route_class=Operation)


class DrawsQuery(SeedQuery):
    """How to score."""

    k: int = Field(
        16,
        ge=1,
        description="Draws an image; more make `log_likelihood` a tighter bound. k times the number of images is at"
        " most `VAE_MAX_DRAWS`.",
    )
    binarize: Binarize | None = Field(
        None,
        description="How grey pixels become binary: by a seeded draw, by a threshold, or not, for images of 0 and 255;"
        " as the model was trained if absent.",
    )


class ScoreQuery(DrawsQuery, ReadingQuery):
    """How to score pictures."""


class ScoreResponse(Answer):
    """Scores in nats, one a picture, in their order."""

    k: int = Field(description="Draws an image.")
    binarize: Binarize = Field(description="How grey pixels became binary.")
    seed: int = Field(description="The seed of the draws.")
    elbo: list[float] = Field(description="-(reconstruction + kl), a bound on log p(x); higher is better.")
    log_likelihood: list[float] = Field(description="The IWAE-k bound on log p(x), tighter; higher is better.")
    reconstruction: list[float] = Field(description="-log p(x|z), averaged over the draws.")
    kl: list[float] = Field(description="KL(q(z|x) || N(0, I)).")
    kl_per_dimension: list[list[float]] = Field(description="The same of each latent dimension.")
    effective_sample_size: list[float] = Field(description="Of the importance weights, from 1 to k.")
    score_percentile: list[float] | None = Field(
        None,
        description="Per cent of held-out images with a lower `log_likelihood`; absent for a k or a binarization that"
        " the bundle has no calibration for.",
    )


@router.post("/score", operation_id="score", responses=BODY_PROBLEMS, response_model_exclude_none=True)
async def score(server: Server, query: Annotated[ScoreQuery, Query()], body: PicturesRequest) -> ScoreResponse:
    """ELBO, IWAE bound and their parts of each picture, and how usual it is."""
    vae = server.catalog.find(query.model, query.version)
    images = await images_of_json(server, vae, query, body)
    return _json(vae, query, *await _score(server, vae, query, images))


@router.post(
    "/score/files",
    operation_id="score_files",
    openapi_extra=IMAGE_FILES,
    responses=BODY_PROBLEMS,
    response_model_exclude_none=True,
)
async def score_files(server: Server, query: Annotated[ScoreQuery, Query()], files: ImageFiles) -> ScoreResponse:
    """As `score`, of uploaded files."""
    vae = server.catalog.find(query.model, query.version)
    images = await images_of_files(server, vae, query, files)
    return _json(vae, query, *await _score(server, vae, query, images))


@router.post(
    "/score/npy",
    operation_id="score_npy",
    openapi_extra=NPY_IMAGES,
    response_class=Response,
    responses=BODY_PROBLEMS
    | documented("Arrays by the names of `score`'s answer; `k` and `binarize` have no axis.", NPZ, seeded=True),
)
async def score_npy(server: Server, query: Annotated[DrawsQuery, Query()], body: RawBody) -> Response:
    """As `score`, of an npy array of the model's size; answers npz."""
    vae = server.catalog.find(query.model, query.version)
    images = images_of_array(server, vae, body)
    scores, binarize, seed = await _score(server, vae, query, images)
    return npz(vae, {**_known(scores), "k": np.array(query.k), "binarize": np.array(binarize)}, seed)


async def _score(server: State, vae: Vae, query: DrawsQuery, images: Pixels) -> tuple[Scores, Binarize, int]:
    if query.k * len(images) > server.limits.max_draws:
        raise InvalidInput(f"k times the number of images is at most {server.limits.max_draws}", "/query/k")
    seed = query.seed_or_new()
    return *await vae.score(images, k=query.k, seed=seed, how=query.binarize), seed


def _known(scores: Scores) -> dict[str, Any]:
    return {name: values for name, values in asdict(scores).items() if values is not None}


def _json(vae: Vae, query: DrawsQuery, scores: Scores, binarize: Binarize, seed: int) -> ScoreResponse:
    lists = {name: values.tolist() for name, values in _known(scores).items()}
    return ScoreResponse(**stamp(vae), k=query.k, binarize=binarize, seed=seed, **lists)
