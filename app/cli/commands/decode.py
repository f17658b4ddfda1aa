"""`vaeserve decode`: latents to images."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import typer

from app.cli import options
from app.cli.bulk import Batches
from app.cli.client import connect
from app.cli.images import FORMATS, MadeImages, numbered
from app.cli.latents import read_latents
from app.cli.outputs import Output
from app.codecs.images import Pixels
from app.codecs.npy import read_npy
from app.errors import UsageError
from app.maths.gaussian import Floats

EXAMPLES = (
    ("A point of a two-dimensional latent space", "vaeserve decode latent:0.5,-1.2 --model mnist-2d -o point.png"),
    ("The latents of `vaeserve encode`", "vaeserve decode latents.npz --output decoded.png"),
)


async def decode(
    latents: Annotated[
        list[str],
        typer.Argument(metavar="LATENTS...", help="latent:0.5,-1.2, or npy and npz files (`latents`, else `mean`)."),
    ],
    output: options.ImagesOutput = None,
    columns: options.Columns = None,
    stdout_format: options.StdoutFormat = "png",
    batch_size: options.BatchSize = 64,
    concurrency: options.Concurrency = 4,
    url: options.Url = options.DEFAULT_URL,
    api_key: options.ApiKey = None,
    bundle: options.Bundle = None,
    model: options.Model = None,
    version: options.Version = None,
) -> None:
    """Decode latents: the decoder's mean image for each latent.

    Reads the files that encode and sample write: the draws, `latents`, or else the posterior means, `mean`.
    """
    target = Output.parse(output, FORMATS, stdout_format)
    arrays = [read_latents(text) for text in latents]
    if len({array.shape[1:] for array in arrays}) > 1:
        raise UsageError("the latents are not all of one shape")
    rows = np.concatenate(arrays)
    target.refuse_overwrite(latents, numbered(len(rows)))
    async with connect(url, api_key, bundle, model, version) as server:
        served = await server.served()

        async def work(_: int, batch: Sequence[Floats]) -> Pixels:
            images = read_npy((await server.post_array("decode/npy", np.asarray(batch), served.query)).content)
            return images if images.ndim == 4 else images[..., None]

        pixels = await Batches(batch_size, concurrency).map("decoding", list(rows), work)
    MadeImages(np.concatenate(pixels), served, {"latents": rows}).deliver(target, columns=columns)
