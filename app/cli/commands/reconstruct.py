"""`vaeserve reconstruct`: pictures through the model and back."""

import secrets
from typing import Annotated, Literal

import numpy as np
import typer

from app.cli.bulk import Arrays, over_pictures
from app.cli.client import Server
from app.cli.commands.encode import Recursive
from app.cli.files import find
from app.cli.options import LARGEST_SEED, Bulk, Columns, Looks, PicturesOutput, Seed, Sources, StdoutFormat, command
from app.cli.pictures import Pictures, called_as, target_of
from app.codecs.images import Pixels
from app.codecs.npy import read_npy

EXAMPLES = (
    ("Originals above what the model makes of them", "vaeserve reconstruct digits/ --output pairs.png"),
    ("One PNG for each, by the posterior predictive", "vaeserve reconstruct digits/ --mode predictive -o again/"),
)


@command
async def reconstruct(
    server: Server,
    paths: Sources,
    looks: Looks,
    bulk: Bulk,
    output: PicturesOutput = None,
    mode: Annotated[
        Literal["mean", "draw", "predictive"],
        typer.Option(help="By the posterior's mean, by one draw from it, or the average of 32 draws."),
    ] = "mean",
    seed: Seed = None,
    columns: Columns = None,
    recursive: Recursive = False,
    stdout_format: StdoutFormat = "png",
) -> None:
    """Encode pictures and decode them again.

    A picture shows each row of originals above their reconstructions; arrays and folders hold the reconstructions,
    which are called as their originals. Where there are draws, the n-th batch draws with the seed plus n.
    """
    target, names = target_of(output, stdout_format), find(paths, recursive=recursive)
    files = called_as(names)
    if target is not None:
        target.spare(names, files.values())
    served = await server.served()
    first = secrets.randbelow(LARGEST_SEED + 1) if seed is None else seed

    async def ask(index: int, pixels: Pixels) -> Arrays:
        query = {**served.query, "mode": mode, "seed": (first + index) % (LARGEST_SEED + 1)}
        images = read_npy((await server.arrays("reconstruct/npy", pixels, query)).content)
        return {"originals": pixels, "images": images.reshape(pixels.shape)}

    answered = await over_pictures("reconstructing", names, looks.reading(served), bulk, ask)
    seeds = {} if mode == "mean" else {"seed": np.array(first)}
    images, originals = answered.arrays["images"], answered.arrays["originals"]
    kept = [files[name] for name in answered.names]
    Pictures(images, served, seeds, answered.names, kept, above=originals).deliver(target, columns=columns)
    answered.complain()
