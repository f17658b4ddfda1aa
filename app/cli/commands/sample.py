"""`vaeserve sample`: images drawn from a model."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from app.cli import options
from app.cli.client import ModelCommand
from app.cli.images import FORMATS, MadeImages
from app.cli.outputs import Output


@dataclass(frozen=True)
class Sample(ModelCommand):
    """Draw new images: latents from the prior or from the aggregated posterior, decoded.

    The same seed gives the same bytes, from a server and from a bundle. The suffix of --output sets the format.
    """

    EXAMPLES = (
        ("A grid of 64 in one image", "vaeserve sample -n 64 --seed 7 --output samples.png"),
        ("Ten threes, one PNG each", "vaeserve sample -n 10 --source aggregate --label 3 --output threes/"),
        ("Arrays with their latents, without a server", "vaeserve sample -n 16 --bundle models/mnist/2 -o samples.npz"),
        ("Into another program", "vaeserve sample --seed 7 -o - | vaeserve encode -"),
    )

    n: Annotated[int, typer.Option("-n", min=1, help="Number of images.")] = 1
    output: options.ImagesOutput = None
    seed: options.Seed = None
    temperature: Annotated[float, typer.Option(min=0, max=100, help="Factor on the draws: below 1, more alike.")] = 1.0
    truncation: Annotated[
        float | None,
        typer.Option(min=0.1, help="Maximum absolute value of a drawn component, before scaling."),
    ] = None
    source: Annotated[
        Literal["prior", "aggregate"],
        typer.Option(help="The prior N(0, I), or the mixture fitted to the aggregated posterior."),
    ] = "prior"
    label: Annotated[int | None, typer.Option(min=0, help="Sample this class only, with --source aggregate.")] = None
    height: Annotated[
        int | None,
        typer.Option(min=1, help="Height in pixels, for a model of any image size: a multiple of its stride."),
    ] = None
    width: Annotated[int | None, typer.Option(min=1, help="Width in pixels, as --height.")] = None
    columns: options.Columns = None
    stdout_format: options.StdoutFormat = "png"

    async def run(self) -> None:
        target = Output.parse(self.output, FORMATS, self.stdout_format)
        query = {
            "n": self.n,
            "seed": self.seed,
            "temperature": self.temperature,
            "truncation": self.truncation,
            "source": self.source,
            "label": self.label,
            "height": self.height,
            "width": self.width,
        }
        async with self.connect() as (server, served):
            images = MadeImages.parse(await server.json("GET", "sample", {**served.query, **query}), served)
        images.deliver(target, columns=self.columns)
