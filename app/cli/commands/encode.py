"""`vaeserve encode`: images to latents."""

from dataclasses import dataclass
from typing import Annotated

import typer

from app.cli import options
from app.cli.bulk import Arrays, ImagesCommand
from app.cli.files import find
from app.cli.outputs import Output
from app.codecs.images import Pixels
from app.errors import CommandError, UsageError
from app.maths.gaussian import Posterior

MAX_PRINTED = 64
"""Maximum images whose latents are printed; more need a file."""


@dataclass(frozen=True)
class Encode(ImagesCommand):
    """Encode images: for each, the mean and the log standard deviation of the posterior q(z|x).

    Takes files, folders and globs. The npz file has the arrays `mean` and `log_std` [N, *latent], with --draw also
    `latents`, and the names of the image files in the same order, `files`. Files that cannot be read are skipped and
    listed at the end, with exit status 1. A folder is read in the order of its file names, so that the same folder
    gives the same npz file.
    """

    EXAMPLES = (
        ("An image's posterior, as JSON", "vaeserve encode digit.png"),
        ("A folder to a file of arrays", "vaeserve encode digits/ --output latents.npz"),
        (
            "Black on white, without a server",
            "vaeserve encode 'scans/*.png' --invert --bundle models/mnist/2 -o scans.npz",
        ),
    )

    paths: options.Paths
    output: options.ArraysOutput = None
    recursive: options.Recursive = False
    draw: Annotated[bool, typer.Option("--draw", help="Also draw one latent from each posterior.")] = False
    seed: options.Seed = None

    async def run(self) -> None:
        target, names = Output.parse(self.output, ("npz",), "npz"), find(self.paths, recursive=self.recursive)
        if target.name is None and len(names) > MAX_PRINTED:
            raise UsageError(f"more than {MAX_PRINTED} images need a file: --output latents.npz")
        target.refuse_overwrite(names)
        async with self.connect() as (server, served):
            if self.draw and "log_std" not in served.manifest["graphs"]["encoder"]["outputs"]:
                raise CommandError(f"{served.name}'s encoder is deterministic: there is no posterior to draw from")

            async def ask(_: int, pixels: Pixels) -> Arrays:
                return dict(await server.post_array("encode/npy", pixels, served.query))

            results = await self.map_images("encoding", names, served, ask)
        drawn: Arrays = {}
        if self.draw:  # here, for all images at once: the batch size must not change the draws
            seed = options.chosen_seed(self.seed)
            posterior = Posterior(results.arrays["mean"], results.arrays["log_std"])
            drawn = {"latents": posterior.draw(seed), "seed": seed}
        results.deliver(served, target, drawn)
