"""`vaeserve reconstruct`: images encoded and decoded again."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from app.cli import options
from app.cli.bulk import Arrays, ImagesCommand
from app.cli.files import find
from app.cli.images import FORMATS, MadeImages, file_names
from app.cli.outputs import Output
from app.codecs.images import Pixels


@dataclass(frozen=True)
class Reconstruct(ImagesCommand):
    """Encode images and decode them again.

    An image file shows each row of originals above their reconstructions; arrays and folders hold the reconstructions
    only, under the names of the originals. The draws of the n-th batch use the seed plus n.
    """

    EXAMPLES = (
        ("Originals above their reconstructions", "vaeserve reconstruct digits/ --output pairs.png"),
        ("One PNG for each, by the posterior predictive", "vaeserve reconstruct digits/ --mode predictive -o again/"),
    )

    paths: options.Paths
    output: options.ImagesOutput = None
    mode: Annotated[
        Literal["mean", "draw", "predictive"],
        typer.Option(help="Decode the posterior's mean, one draw from it, or average 32 decoded draws."),
    ] = "mean"
    seed: options.Seed = None
    columns: options.Columns = None
    recursive: options.Recursive = False
    stdout_format: options.StdoutFormat = "png"

    async def run(self) -> None:
        target, names = (
            Output.parse(self.output, FORMATS, self.stdout_format),
            find(self.paths, recursive=self.recursive),
        )
        files = file_names(names)
        target.refuse_overwrite(names, files.values())
        first_seed = options.chosen_seed(self.seed)
        async with self.connect() as (server, served):

            async def ask(index: int, pixels: Pixels) -> Arrays:
                query = {**served.query, "mode": self.mode, "seed": options.batch_seed(first_seed, index)}
                images = await server.post_array("reconstruct/npy", pixels, query)
                return {"originals": pixels, "images": images.reshape(pixels.shape)}

            results = await self.map_images("reconstructing", names, served, ask)
        extra = {} if self.mode == "mean" else {"seed": first_seed}
        images, originals = results.arrays["images"], results.arrays["originals"]
        kept = {name: files[name] for name in results.names}
        MadeImages(images, served, extra, kept, originals).deliver(target, columns=self.columns)
        results.check_skipped()
