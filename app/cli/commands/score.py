"""`vaeserve score`: how well a model explains images."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from app.cli import options
from app.cli.bulk import Arrays, ImagesCommand
from app.cli.files import find
from app.cli.outputs import Output
from app.cli.terminal import table
from app.codecs.images import Pixels

COLUMNS = ("elbo", "log_likelihood", "reconstruction", "kl", "score_percentile")


@dataclass(frozen=True)
class Score(ImagesCommand):
    """Score images: ELBO and IWAE-k bound of log p(x), in nats, higher is better, and their parts.

    `score_percentile` is the percentage of held-out images that score lower: a low one is unusual. It is known only for
    the k that the bundle was calibrated with, such as 16. The n-th batch draws with the seed plus n: the same images,
    seed and --batch-size give the same scores.
    """

    EXAMPLES = (
        ("How typical an image is", "vaeserve score digit.png --seed 1"),
        ("The scores of a folder", "vaeserve score digits/ --k 16 --seed 1 --output scores.npz"),
    )

    paths: options.Paths
    output: options.ArraysOutput = None
    recursive: options.Recursive = False
    k: Annotated[int, typer.Option(min=1, help="Draws per image; more make log_likelihood a tighter bound.")] = 16
    binarize: Annotated[
        Literal["draw", "threshold", "none"] | None,
        typer.Option(help="How gray pixels become binary; as in training if absent."),
    ] = None
    seed: options.Seed = None
    as_json: options.Json = False

    async def run(self) -> None:
        target, names = Output.parse(self.output, ("npz",), "npz"), find(self.paths, recursive=self.recursive)
        target.refuse_overwrite(names)
        first_seed = options.chosen_seed(self.seed)
        async with self.connect() as (server, served):

            async def ask(index: int, pixels: Pixels) -> Arrays:
                draws = {"k": self.k, "binarize": self.binarize, "seed": options.batch_seed(first_seed, index)}
                return dict(await server.post_array("score/npy", pixels, served.query | draws))

            results = await self.map_images("scoring", names, served, ask)
        if target.name is None and not self.as_json:
            _show(results.names, results.arrays)
            results.check_skipped()
        else:
            results.deliver(served, target, {"seed": first_seed})


def _show(names: list[str], arrays: Arrays) -> None:
    known = [column for column in COLUMNS if column in arrays]
    rows = [
        {"file": name} | {column: f"{arrays[column][index]:.2f}" for column in known}
        for index, name in enumerate(names)
    ]
    table(rows, known)
