"""`vaeserve interpolate`: a path through the latent space."""

import base64
from typing import Annotated, Any, Literal

import typer

from app.cli.client import Server
from app.cli.files import read
from app.cli.latents import LATENT, numbers
from app.cli.options import Duration, Looks, PicturesOutput, StdoutFormat, command
from app.cli.pictures import FRAME_MILLISECONDS, Pictures, numbered, target_of
from app.codecs.images import Reading, write_image
from app.errors import UsageError

EXAMPLES = (
    (
        "From a picture to the mean three and on to the eight",
        "vaeserve interpolate digit.png label:3 label:8 -o walk.gif",
    ),
    ("A strip of 12", "vaeserve interpolate label:4 label:9 --steps 12 -o strip.png"),
    (
        "Between two latents",
        "vaeserve interpolate latent:-2,0 latent:2,0 --model mnist-2d --method lerp -o across.png",
    ),
)
LABEL = "label:"


@command
async def interpolate(
    server: Server,
    points: Annotated[
        list[str],
        typer.Argument(metavar="POINTS...", help="Two or more: a picture's path, label:3 or latent:0.1,0.2."),
    ],
    looks: Looks,
    output: PicturesOutput = None,
    steps: Annotated[int, typer.Option(min=2, help="Pictures from each point to the next, both included.")] = 10,
    method: Annotated[
        Literal["auto", "lerp", "slerp"],
        typer.Option(help="auto takes slerp between given latents of d > 2, else lerp."),
    ] = "auto",
    duration: Duration = FRAME_MILLISECONDS,
    stdout_format: StdoutFormat = "png",
) -> None:
    """Walk through the latent space from one point to the next.

    A point is a picture (its posterior mean), a label (the mean of its class) or a latent. A .png is a strip, .gif and
    .webp are animations, a folder gets a PNG for each step.
    """
    target = target_of(output, stdout_format)
    if len(points) < 2:
        raise UsageError("a path has two points or more")
    if target is not None:
        target.spare(points, numbered((len(points) - 1) * (steps - 1) + 1))
    served = await server.served()
    reading = looks.reading(served)
    body = {"points": [_point(text, reading) for text in points], "steps": steps, "method": method}
    pictures = Pictures.of(await server.json("POST", "interpolate", served.query, json=body), served)
    columns = None if target is None else len(pictures.pixels)
    pictures.deliver(target, columns=columns, milliseconds=duration, moving=True)


def _point(text: str, reading: Reading) -> dict[str, Any]:
    """A point as the server takes it.

    Raises:
        UsageError: it is none.
    """
    if text.startswith(LATENT):
        return {"latent": numbers(text)}
    if text.startswith(LABEL):
        label = text.removeprefix(LABEL)
        if not label.isdecimal():
            raise UsageError("a label is written label:3")
        return {"label": int(label)}
    batch = read([text], reading)
    if batch.skipped:
        raise UsageError(f"{text}: {batch.skipped[text]}; a point is a picture, label:3 or latent:0.1,0.2")
    return {"image": base64.b64encode(write_image(batch.pixels[0])).decode()}
