"""`vaeserve reconstruct`: images encoded and decoded again."""

from typing import Annotated, Literal

import numpy as np
import typer

from app.cli import options
from app.cli.bulk import Arrays, Batches, map_images
from app.cli.client import connect
from app.cli.files import find, reading_of
from app.cli.images import FORMATS, MadeImages, file_names
from app.cli.outputs import Output
from app.codecs.images import Pixels
from app.codecs.npy import read_npy

EXAMPLES = (
    ("Originals above their reconstructions", "vaeserve reconstruct digits/ --output pairs.png"),
    ("One PNG for each, by the posterior predictive", "vaeserve reconstruct digits/ --mode predictive -o again/"),
)


async def reconstruct(
    paths: options.Paths,
    output: options.ImagesOutput = None,
    mode: Annotated[
        Literal["mean", "draw", "predictive"],
        typer.Option(help="Decode the posterior's mean, one draw from it, or average 32 decoded draws."),
    ] = "mean",
    seed: options.Seed = None,
    columns: options.Columns = None,
    recursive: options.Recursive = False,
    stdout_format: options.StdoutFormat = "png",
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
    """Encode images and decode them again.

    An image file shows each row of originals above their reconstructions; arrays and folders hold the reconstructions
    only, under the names of the originals. The draws of the n-th batch use the seed plus n.
    """
    target, names = Output.parse(output, FORMATS, stdout_format), find(paths, recursive=recursive)
    files = file_names(names)
    target.refuse_overwrite(names, files.values())
    first_seed = options.chosen_seed(seed)
    async with connect(url, api_key, bundle, model, version) as server:
        served = await server.served()

        async def ask(index: int, pixels: Pixels) -> Arrays:
            query = {**served.query, "mode": mode, "seed": options.batch_seed(first_seed, index)}
            images = read_npy((await server.post_array("reconstruct/npy", pixels, query)).content)
            return {"originals": pixels, "images": images.reshape(pixels.shape)}

        reading = reading_of(served, invert=invert, background=background, strict=strict)
        results = await map_images("reconstructing", names, reading, Batches(batch_size, concurrency), ask)
    extra = {} if mode == "mean" else {"seed": np.array(first_seed)}
    images, originals = results.arrays["images"], results.arrays["originals"]
    targets = [files[name] for name in results.names]
    MadeImages(images, served, extra, results.names, targets, originals).deliver(target, columns=columns)
    results.check_skipped()
