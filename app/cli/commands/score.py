"""`vaeserve score`: how well a model explains images."""

from typing import Annotated, Any, Literal

import numpy as np
import typer

from app.cli import options
from app.cli.bulk import Arrays, Batches, map_images
from app.cli.client import connect, read_npz
from app.cli.files import find, reading_of
from app.cli.outputs import Output
from app.cli.terminal import table
from app.codecs.images import Pixels

EXAMPLES = (
    ("How typical an image is", "vaeserve score digit.png --seed 1"),
    ("The scores of a folder", "vaeserve score digits/ --k 16 --seed 1 --output scores.npz"),
)
COLUMNS = ("elbo", "log_likelihood", "reconstruction", "kl", "score_percentile")


async def score(
    paths: options.Paths,
    output: options.ArraysOutput = None,
    recursive: options.Recursive = False,
    k: Annotated[int, typer.Option(min=1, help="Draws per image; more make log_likelihood a tighter bound.")] = 16,
    binarize: Annotated[
        Literal["draw", "threshold", "none"] | None,
        typer.Option(help="How gray pixels become binary; as in training if absent."),
    ] = None,
    seed: options.Seed = None,
    as_json: options.Json = False,
    invert: options.Invert = False,
    background: options.Background = None,
    strict: options.Strict = False,
    batch_size: options.BatchSize = 64,
    concurrency: options.Concurrency = 4,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
    bundle: options.Bundle = None,
    model: options.Model = None,
    version: options.Version = None,
) -> None:
    """Score images: ELBO and IWAE-k bound of log p(x), in nats, higher is better, and their parts.

    `score_percentile` is the percentage of held-out images that score lower: a low one is unusual. It is known only for
    the k that the bundle was calibrated with, such as 16. The n-th batch draws with the seed plus n: the same images,
    seed and --batch-size give the same scores.
    """
    target, names = Output.parse(output, ("npz",), "npz"), find(paths, recursive=recursive)
    target.refuse_overwrite(names)
    first_seed = options.chosen_seed(seed)
    async with connect(url, api_key, bundle, model, version) as server:
        served = await server.served()

        async def ask(index: int, pixels: Pixels) -> Arrays:
            query = {
                **served.query,
                "k": k,
                "binarize": binarize,
                "seed": options.batch_seed(first_seed, index),
            }
            return read_npz((await server.post_array("score/npy", pixels, query)).content)

        reading = reading_of(served, invert=invert, background=background, strict=strict)
        results = await map_images("scoring", names, reading, Batches(batch_size, concurrency), ask)
    if target.name is None and not as_json:
        _show(results.names, results.arrays)
        results.check_skipped()
    else:
        results.deliver(served, target, {"seed": np.array(first_seed)})


def _show(names: list[str], arrays: dict[str, Any]) -> None:
    known = [column for column in COLUMNS if column in arrays]
    rows = [[name, *(f"{arrays[column][index]:.2f}" for column in known)] for index, name in enumerate(names)]
    table(None, {"file": "left", **dict.fromkeys(known, "right")}, rows)
