"""What a command is, and the options and arguments that several commands share, as types of their fields."""

import secrets
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer

from app.errors import UsageError

DEFAULT_URL = "http://127.0.0.1:8000"
MAX_SEED = 2**31 - 1

_server_option = partial(typer.Option, rich_help_panel="Which server and model")


class Command(ABC):
    """A command of `vaeserve`: its docstring is its help, typer makes it from the arguments, and then it runs."""

    EXAMPLES: ClassVar[tuple[tuple[str, str], ...]]
    """What the help shows: in words, and as a command line."""

    @abstractmethod
    def run(self) -> Coroutine[Any, Any, None] | None:
        """Do the work; a coroutine is awaited."""


def _refuse_url(context: typer.Context, bundle: Path | None) -> Path | None:
    """Raise UsageError if both --bundle and --url are given; the variable VAE_URL may be set beside --bundle."""
    source = context.get_parameter_source("url")
    if bundle is not None and source is not None and source.name == "COMMANDLINE":
        raise UsageError("--bundle works without a server, but --url names one: give one of them")
    return bundle


# Eager options are read first: the check of --bundle needs to know where --url came from.
Url = Annotated[str, _server_option(envvar="VAE_URL", is_eager=True, help="Address of the server.")]
ApiKey = Annotated[str | None, _server_option(envvar="VAE_API_KEY", help="API key, if the server requires one.")]
Bundle = Annotated[
    Path | None,
    _server_option(
        exists=True,
        file_okay=False,
        callback=_refuse_url,
        help="Work without a server, on this bundle, such as models/mnist/2.",
    ),
]
Model = Annotated[str | None, _server_option("--model", "-m", help="Name of the model; the default model if absent.")]
Version = Annotated[int | None, _server_option(min=1, help="Version of the model; the newest if absent.")]

Paths = Annotated[
    list[str],
    typer.Argument(metavar="PATHS...", help="Image files, folders, globs; - reads one image from stdin."),
]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Also read the subfolders of folders.")]
Seed = Annotated[
    int | None,
    typer.Option(
        min=0, max=MAX_SEED, help="The same seed gives the same result; without it, a random seed is used and printed."
    ),
]
Columns = Annotated[int | None, typer.Option(min=1, help="Columns of the grid; a square grid if absent.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ImagesOutput = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        help="A file, in the format of its suffix: .png, .webp, .gif, .npy or .npz (with latents); a folder for one PNG"
        " per image; - for stdout. If absent: drawn in a terminal, JSON in a pipe.",
    ),
]
ArraysOutput = Annotated[
    str | None,
    typer.Option("--output", "-o", help="An npz file; - for stdout. If absent: printed; as JSON, at most 64 images."),
]
StdoutFormat = Annotated[str, typer.Option("--format", help="Format of `--output -`: png, webp, gif, npy or npz.")]


def chosen_seed(seed: int | None) -> int:
    """Return the seed, or a random one if it is None."""
    return secrets.randbelow(MAX_SEED + 1) if seed is None else seed


def batch_seed(first: int, index: int) -> int:
    """Return the seed of the batch with this index: the first seed plus the index."""
    return (first + index) % (MAX_SEED + 1)
