"""`vaeserve encode`: images to latents."""

from typing import Annotated

import numpy as np
import typer

from app.cli import options
from app.cli.bulk import Arrays, Batches, map_images
from app.cli.client import connect, read_npz
from app.cli.files import find, reading_of
from app.cli.outputs import Output
from app.codecs.images import Pixels
from app.errors import CommandError, UsageError
from app.maths.gaussian import Posterior

EXAMPLES = (
    ("An image's posterior, as JSON", "vaeserve encode digit.png"),
    ("A folder to a file of arrays", "vaeserve encode digits/ --output latents.npz"),
    ("Black on white, without a server", "vaeserve encode 'scans/*.png' --invert --bundle models/mnist/2 -o scans.npz"),
)
MAX_PRINTED = 64
"""Maximum images whose latents are printed; more need a file."""


async def encode(
    paths: options.Paths,
    output: options.ArraysOutput = None,
    recursive: options.Recursive = False,
    draw: Annotated[bool, typer.Option("--draw", help="Also draw one latent from each posterior.")] = False,
    seed: options.Seed = None,
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
    """Encode images: for each, the mean and the log standard deviation of the posterior q(z|x).

    Takes files, folders and globs. The npz file has the arrays `mean` and `log_std` [N, *latent], with --draw also
    `latents`, and the names of the image files in the same order, `files`. Files that cannot be read are skipped and
    listed at the end, with exit status 1. A folder is read in the order of its file names, so that the same folder
    gives the same npz file.
    """
    target, names = Output.parse(output, ("npz",), "npz"), find(paths, recursive=recursive)
    if target.name is None and len(names) > MAX_PRINTED:
        raise UsageError(f"more than {MAX_PRINTED} images need a file: --output latents.npz")
    target.refuse_overwrite(names)
    async with connect(url, api_key, bundle, model, version) as server:
        served = await server.served()
        if draw and not served.stochastic:
            raise CommandError(f"{served.name}'s encoder is deterministic: there is no posterior to draw from")

        async def ask(_: int, pixels: Pixels) -> Arrays:
            return read_npz((await server.post_array("encode/npy", pixels, served.query)).content)

        reading = reading_of(served, invert=invert, background=background, strict=strict)
        results = await map_images("encoding", names, reading, Batches(batch_size, concurrency), ask)
    drawn: Arrays = {}
    if draw:  # here, for all images at once: the batch size must not change the draws
        seed = options.chosen_seed(seed)
        posterior = Posterior(results.arrays["mean"], results.arrays["log_std"])
        drawn = {"latents": posterior.draw(seed), "seed": np.array(seed)}
    results.deliver(served, target, drawn)
