"""`vaeserve score`: how well a model explains pictures."""

import secrets
from typing import Annotated, Any, Literal

import numpy as np
import typer

from app.cli.bulk import Arrays, over_pictures
from app.cli.client import Server, npz
from app.cli.commands.encode import NpzOutput, Recursive, deliver, npz_target
from app.cli.files import find
from app.cli.options import LARGEST_SEED, Bulk, Json, Looks, Seed, Sources, command
from app.cli.terminal import table
from app.codecs.images import Pixels

EXAMPLES = (
    ("How usual a picture is", "vaeserve score digit.png --seed 1"),
    ("The scores of a folder", "vaeserve score digits/ --k 16 --seed 1 --output scores.npz"),
)
COLUMNS = ("elbo", "log_likelihood", "reconstruction", "kl", "score_percentile")


@command
async def score(
    server: Server,
    paths: Sources,
    looks: Looks,
    bulk: Bulk,
    output: NpzOutput = None,
    recursive: Recursive = False,
    k: Annotated[int, typer.Option(min=1, help="Draws an image; more make log_likelihood a tighter bound.")] = 16,
    binarize: Annotated[
        Literal["draw", "threshold", "none"] | None,
        typer.Option(help="How grey pixels become binary; as the model was trained if absent."),
    ] = None,
    seed: Seed = None,
    as_json: Json = False,
) -> None:
    """Score pictures: ELBO and IWAE-k bound of log p(x), in nats, higher is better, and their parts.

    `score_percentile` is the share of held-out images that the model explains less well: low is unusual. It is known
    for the k that the bundle was calibrated at, such as 16. The n-th batch draws with the seed plus n: the same
    pictures, seed and --batch-size give the same scores.
    """
    target, names = npz_target(output), find(paths, recursive=recursive)
    if target is not None:
        target.spare(names)
    served = await server.served()
    first = secrets.randbelow(LARGEST_SEED + 1) if seed is None else seed

    async def ask(index: int, pixels: Pixels) -> Arrays:
        query = {**served.query, "k": k, "binarize": binarize, "seed": (first + index) % (LARGEST_SEED + 1)}
        return npz((await server.arrays("score/npy", pixels, query)).content)

    answered = await over_pictures("scoring", names, looks.reading(served), bulk, ask)
    if target is None and not as_json:
        _show(answered.names, answered.arrays)
        answered.complain()
    else:
        deliver(answered, served, target, {"seed": np.array(first)})


def _show(names: list[str], arrays: dict[str, Any]) -> None:
    known = [column for column in COLUMNS if column in arrays]
    rows = [[name, *(f"{arrays[column][index]:.2f}" for column in known)] for index, name in enumerate(names)]
    table(None, {"file": "left", **dict.fromkeys(known, "right")}, rows)
