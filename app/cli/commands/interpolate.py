"""`vaeserve interpolate`: a path through the latent space."""

import base64
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

from app.cli import options
from app.cli.client import ModelCommand
from app.cli.files import ReadingOptions, read
from app.cli.images import FORMATS, FRAME_MILLISECONDS, MadeImages, numbered
from app.cli.latents import LATENT, check_size, parse_latent
from app.cli.outputs import Output
from app.codecs.images import Reading, write_image
from app.errors import UsageError

LABEL = "label:"


@dataclass(frozen=True)
class Interpolate(ModelCommand, ReadingOptions):
    """Walk through the latent space from one point to the next.

    A point is an image (its posterior mean), a label (the mean of its class) or a latent. A .png is a strip, .gif and
    .webp are animations, a folder gets a PNG for each step.
    """

    EXAMPLES = (
        (
            "From an image to the mean three and on to the eight",
            "vaeserve interpolate digit.png label:3 label:8 -o walk.gif",
        ),
        ("A strip of 12", "vaeserve interpolate label:4 label:9 --steps 12 -o strip.png"),
        (
            "Between two latents",
            "vaeserve interpolate latent:-2,0 latent:2,0 --model mnist-2d --method lerp -o across.png",
        ),
    )

    points: Annotated[
        list[str],
        typer.Argument(metavar="POINTS...", help="Two or more: an image's path, label:3 or latent:0.1,0.2."),
    ]
    output: options.ImagesOutput = None
    steps: Annotated[int, typer.Option(min=2, help="Images from each point to the next, both included.")] = 10
    method: Annotated[
        Literal["auto", "lerp", "slerp"],
        typer.Option(help="auto takes slerp between given latents of d > 2, else lerp."),
    ] = "auto"
    duration: Annotated[int, typer.Option(min=20, max=10_000, help="Milliseconds per frame of an animation.")] = (
        FRAME_MILLISECONDS
    )
    stdout_format: options.StdoutFormat = "png"

    async def run(self) -> None:
        target = Output.parse(self.output, FORMATS, self.stdout_format)
        if len(self.points) < 2:
            raise UsageError("a path needs two points or more")
        target.refuse_overwrite(self.points, numbered((len(self.points) - 1) * (self.steps - 1) + 1))
        async with self.connect() as (server, served):
            reading = self.reading(served)
            if any(text.startswith(LATENT) for text in self.points):
                check_size(served.manifest["latent"]["shape"], "images")
            body = {
                "points": [_point(text, reading) for text in self.points],
                "steps": self.steps,
                "method": self.method,
            }
            images = MadeImages.parse(await server.json("POST", "interpolate", served.query, json=body), served)
        columns = None if target.name is None else len(images.pixels)
        images.deliver(target, columns=columns, milliseconds=self.duration)


def _point(text: str, reading: Reading) -> dict[str, Any]:
    """A point in the server's JSON form."""
    if text.startswith(LATENT):
        return {"latent": parse_latent(text)}
    if text.startswith(LABEL):
        label = text.removeprefix(LABEL)
        if not label.isdecimal():
            raise UsageError("a label is written label:3")
        return {"label": int(label)}
    images, skipped = read([text], reading)
    if skipped:
        raise UsageError(f"{text}: {skipped[text]}; a point is an image, label:3 or latent:0.1,0.2")
    return {"image": base64.b64encode(write_image(images[text])).decode()}
