"""`vaeserve sample`: images that the model makes up."""

from typing import Annotated, Literal

import typer

from app.cli.client import Server
from app.cli.options import Columns, PicturesOutput, Seed, StdoutFormat, command
from app.cli.pictures import Pictures, target_of

EXAMPLES = (
    ("A grid of 64 in one picture", "vaeserve sample -n 64 --seed 7 --output samples.png"),
    ("Ten threes, one PNG each", "vaeserve sample -n 10 --source aggregate --label 3 --output threes/"),
    ("Arrays with their latents, without a server", "vaeserve sample -n 16 --bundle models/mnist/2 -o samples.npz"),
    ("Into another program", "vaeserve sample --seed 7 -o - | vaeserve encode -"),
)


@command
async def sample(
    server: Server,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 1,
    output: PicturesOutput = None,
    seed: Seed = None,
    temperature: Annotated[float, typer.Option(min=0, max=100, help="Scales the draws: below 1, more alike.")] = 1.0,
    truncation: Annotated[
        float | None, typer.Option(min=0.1, help="Draws components beyond this again, before scaling.")
    ] = None,
    source: Annotated[
        Literal["prior", "aggregate"],
        typer.Option(help="The prior N(0, I), or the mixture fitted to the aggregated posterior."),
    ] = "prior",
    label: Annotated[int | None, typer.Option(min=0, help="Only this class, with --source aggregate.")] = None,
    height: Annotated[
        int | None,
        typer.Option(min=1, help="Pixels, where the model makes images of any size: a multiple of its stride."),
    ] = None,
    width: Annotated[int | None, typer.Option(min=1, help="As --height.")] = None,
    columns: Columns = None,
    stdout_format: StdoutFormat = "png",
) -> None:
    """Draw new images: latents from the prior or from the aggregated posterior, decoded.

    The same seed gives the same bytes, from a server and from a bundle. The form of the output follows from its name.
    """
    target, served = target_of(output, stdout_format), await server.served()
    query = {
        **served.query,
        "n": n,
        "seed": seed,
        "temperature": temperature,
        "truncation": truncation,
        "source": source,
        "label": label,
        "height": height,
        "width": width,
    }
    Pictures.of(await server.json("GET", "sample", query), served).deliver(target, columns=columns)
