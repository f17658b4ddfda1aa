"""`vaeserve encode`: pictures to latents."""

import secrets
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from app.cli.bulk import Answered, Arrays, over_pictures
from app.cli.client import Served, Server, npz
from app.cli.files import find
from app.cli.options import LARGEST_SEED, Bulk, Looks, Seed, Sources, command
from app.cli.outputs import Output
from app.cli.pictures import print_json
from app.cli.terminal import note
from app.codecs.images import Pixels
from app.codecs.npy import write_npz
from app.errors import CommandError, UsageError
from app.maths.gaussian import Posterior

EXAMPLES = (
    ("A picture's posterior, as JSON", "vaeserve encode digit.png"),
    ("A folder to a file of arrays", "vaeserve encode digits/ --output latents.npz"),
    ("Black on white, without a server", "vaeserve encode 'scans/*.png' --invert --bundle models/mnist/2 -o scans.npz"),
)
MOST_PRINTED = 64
"""Pictures whose latents are printed; more need a file."""

NpzOutput = Annotated[
    str | None,
    typer.Option("--output", "-o", help="An npz file; - for stdout. Without: JSON, of 64 pictures at most."),
]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Look into folders in folders.")]


@command
async def encode(
    server: Server,
    paths: Sources,
    looks: Looks,
    bulk: Bulk,
    output: NpzOutput = None,
    recursive: Recursive = False,
    draw: Annotated[bool, typer.Option("--draw", help="Also draw one latent from each posterior.")] = False,
    seed: Seed = None,
) -> None:
    """Encode pictures: mean and log of the standard deviation of the posterior q(z|x) of each.

    Takes files, whole folders and globs. The npz has the arrays `mean` and `log_std` [N, *latent], with --draw
    `latents`, and the names of the pictures in the same order, `files`. What cannot be read is skipped and listed at
    the end, with exit status 1. Folders are read in the order of their names: the same folder gives the same file.
    """
    target, names = npz_target(output), find(paths, recursive=recursive)
    if target is None:
        check_printable(names)
    else:
        target.spare(names)
    served = await server.served()
    if draw and not served.stochastic:
        raise CommandError(f"{served.name}'s encoder is deterministic: there is no posterior to draw from")

    async def ask(_: int, pixels: Pixels) -> Arrays:
        return npz((await server.arrays("encode/npy", pixels, served.query)).content)

    answered = await over_pictures("encoding", names, looks.reading(served), bulk, ask)
    deliver(answered, served, target, _drawn(answered.arrays, seed) if draw else {})


def _drawn(arrays: Arrays, seed: int | None) -> dict[str, NDArray[Any]]:
    """Draws by each picture's place among all: the batches do not show, and no two of them share their noise."""
    seed = secrets.randbelow(LARGEST_SEED + 1) if seed is None else seed
    posterior = Posterior(arrays["mean"], arrays["log_std"])
    return {"latents": posterior.draw(seed), "seed": np.array(seed)}


def npz_target(output: str | None) -> Output | None:
    """Where arrays go that `--output` names; None where it is absent. Raises UsageError as `Output.parse`."""
    return None if output is None else Output.parse(output, ("npz",), "npz")


def check_printable(names: list[str]) -> None:
    """Raises UsageError where they are more than one would print."""
    if len(names) > MOST_PRINTED:
        raise UsageError(f"more than {MOST_PRINTED} pictures want a file: --output latents.npz")


def deliver(answered: Answered, served: Served, target: Output | None, more: dict[str, NDArray[Any]]) -> None:
    """Write or print arrays and names, and tell what was skipped.

    Raises:
        CommandError: pictures were skipped, or the file cannot be written.
    """
    told = {name: np.array(value) for name, value in served.query.items()}
    arrays = {**answered.arrays, **more, "files": np.array(answered.names), **told}
    if target is None:
        print_json(arrays)
    else:
        target.write(write_npz(arrays))
        count = len(answered.names)
        note(f"{target.name}: {count} picture{'s' * (count > 1)} by {served.name} {served.version}")
    answered.complain()
