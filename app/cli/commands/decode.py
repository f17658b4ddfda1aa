"""`vaeserve decode`: latents to images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer

from app.cli import options
from app.cli.bulk import Batches
from app.cli.client import ModelCommand
from app.cli.images import FORMATS, MadeImages, numbered
from app.cli.latents import LATENT, read_latents, typed_map
from app.cli.outputs import Output
from app.codecs.images import Pixels
from app.errors import UsageError
from app.maths.gaussian import Floats


@dataclass(frozen=True)
class Decode(ModelCommand, Batches):
    """Decode latents: the decoder's mean image for each latent.

    Reads the files that encode and sample write: the draws, `latents`, or else the posterior means, `mean`. A typed
    map is in row-major order.
    """

    EXAMPLES = (
        ("A point of a two-dimensional latent space", "vaeserve decode latent:0.5,-1.2 --model mnist-2d -o point.png"),
        ("The latents of `vaeserve encode`", "vaeserve decode latents.npz --output decoded.png"),
    )

    latents: Annotated[
        list[str],
        typer.Argument(metavar="LATENTS...", help="latent:0.5,-1.2, or npy and npz files (`latents`, else `mean`)."),
    ]
    output: options.ImagesOutput = None
    columns: options.Columns = None
    stdout_format: options.StdoutFormat = "png"

    async def run(self) -> None:
        target = Output.parse(self.output, FORMATS, self.stdout_format)
        arrays = [read_latents(text) for text in self.latents]
        target.refuse_overwrite(self.latents, numbered(sum(map(len, arrays))))
        async with self.connect() as (server, served):
            shape = served.manifest["latent"]["shape"]
            arrays = [
                typed_map(array, shape) if text.startswith(LATENT) else array
                for text, array in zip(self.latents, arrays, strict=True)
            ]
            if len({array.shape[1:] for array in arrays}) > 1:
                raise UsageError("the latents are not all of one shape")
            rows = np.concatenate(arrays)

            async def work(_: int, batch: Sequence[Floats]) -> Pixels:
                images: Pixels = await server.post_array("decode/npy", np.asarray(batch), served.query)
                return images if images.ndim == 4 else images[..., None]

            pixels = await self.map("decoding", list(rows), work)
        MadeImages(np.concatenate(pixels), served, {"latents": rows}).deliver(target, columns=self.columns)
