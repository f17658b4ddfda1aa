"""The options that commands share, in groups, and how a command is made of a function that asks a server.

A parameter whose type is one of the groups stands for all options of the group; `Server` stands for those that say
which server and which model are asked.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from app.cli.client import Served, Server, connect
from app.codecs.images import Reading, parse_color
from app.errors import InvalidInput, UsageError

LARGEST_SEED = 2**31 - 1
_MOST_PIXELS = 2**28
"""Of one picture: it is the person's own, and is read here."""

_SERVER, _READING, _BULK = "Which server and model", "How pictures are read", "Many at once"

Seed = Annotated[
    int | None,
    typer.Option(
        min=0, max=LARGEST_SEED, help="The same seed gives the same result; without one it is picked and told."
    ),
]
Columns = Annotated[int | None, typer.Option(min=1, help="Columns of the grid, which is square without.")]
Duration = Annotated[int, typer.Option(min=20, max=10_000, help="Milliseconds a frame of an animation.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
PicturesOutput = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        help="A file, its form by its suffix: .png, .webp, .gif, .npy or .npz (with latents); a folder for single PNGs;"
        " - for stdout. Without: drawn in a terminal, JSON in a pipe.",
    ),
]
StdoutFormat = Annotated[str, typer.Option("--format", help="Form of `--output -`: png, webp, gif, npy or npz.")]
Sources = Annotated[
    list[str],
    typer.Argument(metavar="PATHS...", help="Pictures, folders, globs; - reads one picture from stdin."),
]


@dataclass(frozen=True)
class Address:
    """A running server."""

    url: Annotated[str, typer.Option(envvar="VAE_URL", rich_help_panel=_SERVER, help="The server that is asked.")] = (
        "http://127.0.0.1:8000"
    )
    api_key: Annotated[
        str | None, typer.Option(envvar="VAE_API_KEY", rich_help_panel=_SERVER, help="Key that is sent to it.")
    ] = None


@dataclass(frozen=True)
class Where(Address):
    """A running server, or none."""

    bundle: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            rich_help_panel=_SERVER,
            help="Work without a server, on this bundle, such as models/mnist/2.",
        ),
    ] = None


@dataclass(frozen=True)
class Which:
    """A model."""

    model: Annotated[
        str | None,
        typer.Option("--model", "-m", rich_help_panel=_SERVER, help="A model's name; the default one if absent."),
    ] = None
    version: Annotated[
        int | None, typer.Option(min=1, rich_help_panel=_SERVER, help="A version of it; the newest if absent.")
    ] = None


@dataclass(frozen=True)
class Looks:
    """How pictures are made what the model takes: converted and resized here, so that little is sent. Where any size
    will do, to the next lower multiple of its stride."""

    invert: Annotated[
        bool, typer.Option("--invert", rich_help_panel=_READING, help="Black on white becomes white on black.")
    ] = False
    background: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_READING,
            help="Colour under transparent pixels: a name, #rgb or #rrggbb; the model's own by default.",
        ),
    ] = None
    strict: Annotated[
        bool,
        typer.Option("--strict", rich_help_panel=_READING, help="Skip what has another size or mode than the model's."),
    ] = False

    def reading(self, served: Served) -> Reading:
        """For the images of a model.

        Raises:
            UsageError: the background is not a colour.
        """
        height, width = served.size or (None, None)
        image = served.manifest["image"]
        try:
            background = parse_color(self.background or image.get("background", "black"))  # of a server before 0.2
        except InvalidInput as error:
            raise UsageError(f"--background: {error}") from None
        return Reading(
            height=height,
            width=width,
            multiple=served.stride,
            mode=image["mode"],
            max_pixels=_MOST_PIXELS,
            background=background,
            invert=self.invert,
            strict=self.strict,
        )


@dataclass(frozen=True)
class Bulk:
    """How much is sent at a time."""

    batch_size: Annotated[int, typer.Option(min=1, rich_help_panel=_BULK, help="Pictures or latents a request.")] = 64
    concurrency: Annotated[int, typer.Option(min=1, max=64, rich_help_panel=_BULK, help="Requests at a time.")] = 4


def command(function: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The command, with single options in the place of their groups, that runs `function` on an event loop."""
    hints = get_type_hints(function, include_extras=True)
    own = inspect.signature(function).parameters.values()
    groups: dict[str, Any] = {p.name: hints[p.name] for p in own if is_dataclass(hints[p.name])}
    server = next((p.name for p in own if hints[p.name] is Server), None)
    options = [p.replace(annotation=hints[p.name]) for p in own if p.name not in groups and p.name != server]
    expanded = [*groups.values(), *((Where, Which) if server else ())]
    options += [option for group in expanded for option in _fields(group)]

    @wraps(function)
    def run(context: typer.Context, **given: Any) -> None:
        if Where in expanded and given["bundle"] is not None and _is_typed(context, "url"):
            raise UsageError("--bundle does without a server, and --url names one: give one of them")
        given |= {name: _taken(group, given) for name, group in groups.items()}
        if server is None:
            asyncio.run(function(**given))
        else:
            asyncio.run(_ask(function, server, _taken(Where, given), _taken(Which, given), given))

    del run.__wrapped__
    options.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
    run.__signature__ = inspect.Signature([o.replace(kind=inspect.Parameter.KEYWORD_ONLY) for o in options])  # type: ignore[attr-defined]
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


async def _ask(
    function: Callable[..., Coroutine[Any, Any, None]], name: str, where: Where, which: Which, given: dict[str, Any]
) -> None:
    async with connect(where.url, where.bundle, where.api_key, which.model, which.version) as server:
        await function(**{name: server}, **given)


def _fields(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    parameters = inspect.signature(group).parameters.values()
    return [parameter.replace(annotation=hints[parameter.name]) for parameter in parameters]


def _is_typed(context: typer.Context, name: str) -> bool:
    """Whether an option is on the command line, and not from a variable or by default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _taken(group: Any, given: dict[str, Any]) -> Any:
    """A group of the options that are given, which are taken away from them."""
    return group(**{name: given.pop(name) for name in inspect.signature(group).parameters})
