"""`vaeserve decode`: latents to images."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import typer

from app.cli.bulk import in_batches
from app.cli.client import Server
from app.cli.latents import read_latents
from app.cli.options import Bulk, Columns, PicturesOutput, StdoutFormat, command
from app.cli.pictures import Pictures, numbered, target_of
from app.codecs.images import Pixels
from app.codecs.npy import read_npy
from app.errors import UsageError
from app.maths.gaussian import Floats

EXAMPLES = (
    ("A point of a two-dimensional latent space", "vaeserve decode latent:0.5,-1.2 --model mnist-2d -o point.png"),
    ("What `vaeserve encode` wrote", "vaeserve decode latents.npz --output decoded.png"),
)


@command
async def decode(
    server: Server,
    latents: Annotated[
        list[str],
        typer.Argument(metavar="LATENTS...", help="latent:0.5,-1.2, or npy and npz files (`latents`, else `mean`)."),
    ],
    bulk: Bulk,
    output: PicturesOutput = None,
    columns: Columns = None,
    stdout_format: StdoutFormat = "png",
) -> None:
    """Decode latents: the decoder's mean image of each.

    Reads the files that encode and sample write; where they hold draws, these are decoded, else the posterior means.
    """
    target = target_of(output, stdout_format)
    given = [read_latents(text) for text in latents]
    if len({array.shape[1:] for array in given}) > 1:
        raise UsageError("the latents are not all of one shape")
    rows = np.concatenate(given)
    if target is not None:
        target.spare(latents, numbered(len(rows)))
    served = await server.served()

    async def work(_: int, some: Sequence[Floats]) -> Pixels:
        images = read_npy((await server.arrays("decode/npy", np.asarray(some), served.query)).content)
        return images if images.ndim == 4 else images[..., None]

    pixels = await in_batches("decoding", list(rows), bulk, work)
    Pictures(np.concatenate(pixels), served, {"latents": rows}).deliver(target, columns=columns)
