"""The commands assembled into `vaeserve`: help with examples, exit status, and errors as one sentence on stderr."""

import asyncio
import inspect
import os
import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.markup import escape

from app import __version__
from app.cli.commands import bench, decode, encode, interpolate, key, models, reconstruct, sample, score, serve
from app.cli.options import Command
from app.cli.terminal import note
from app.errors import UsageError, VaeError

COMMANDS: dict[str, tuple[type[Command], ...]] = {
    "The server": (serve.Serve, models.Models, key.Key, bench.Bench),
    "A model": (
        sample.Sample,
        encode.Encode,
        decode.Decode,
        reconstruct.Reconstruct,
        interpolate.Interpolate,
        score.Score,
    ),
}
"""By panel of the help; a command has its class's name, in lower case."""

FIRST_SESSION = (
    ("In one terminal, start the server", "vaeserve serve"),
    ("In another, list its models", "vaeserve models"),
    ("Draw 64 digits into one image", "vaeserve sample -n 64 --seed 7 --output samples.png"),
    ("And one by one into a folder", "vaeserve sample -n 64 --seed 7 --output digits/"),
    ("Encode a folder", "vaeserve encode digits/ --output latents.npz"),
    ("Walk from three to eight", "vaeserve interpolate label:3 label:8 --output walk.gif"),
    ("The same without a server", "vaeserve sample -n 64 --seed 7 --bundle models/mnist/2 --output samples.png"),
)


def _epilog(heading: str, examples: Iterable[tuple[str, str]]) -> str:
    shown = [f"  [dim]{escape(text)}:[/]\n  $ [bold]{escape(line)}[/]" for text, line in examples]
    return f"[bold]{heading}[/]\n\n" + "\n\n".join(shown)


def _help(command: object) -> str:
    """Return the docstring with each paragraph on one line, so that it wraps at the terminal's width."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(escape(paragraph.replace("\n", " ")) for paragraph in paragraphs)


def vaeserve(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Variational autoencoders from the command line: serve models, sample from them, encode, decode, interpolate.

    Commands send requests to a running server (--url, or the variable VAE_URL), or work on a bundle without one
    (--bundle); the same seed gives the same result both ways. `vaeserve COMMAND --help` shows examples.
    """
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help(), end="")


def _assemble() -> typer.Typer:
    app = typer.Typer(rich_markup_mode="rich")
    epilog = _epilog("A first session", FIRST_SESSION)
    app.callback(invoke_without_command=True, help=_help(vaeserve), epilog=epilog)(vaeserve)
    for panel, commands in COMMANDS.items():
        for command in commands:
            epilog = _epilog("Examples", command.EXAMPLES)
            app.command(help=_help(command), epilog=epilog, rich_help_panel=panel)(command)
    return app


app = _assemble()


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0, 1 if it failed, 2 if its arguments are wrong, 130 at Ctrl-C."""
    sys.exit(_status(sys.argv[1:] if arguments is None else arguments))


def _status(arguments: list[str]) -> int:
    """Run a command, print its error, if any, and return the exit status."""
    try:
        made = app(arguments, prog_name="vaeserve", standalone_mode=False)
        if not isinstance(made, Command):  # the help or the version was printed
            return made or 0
        if coroutine := made.run():
            asyncio.run(coroutine)
        sys.stdout.flush()
    except typer.TyperException as error:
        path = getattr(getattr(error, "ctx", None), "command_path", "vaeserve")
        note(f"error: {error.format_message()} See `{path} --help`.")
        return 2
    except VaeError as error:
        note(f"error: {error}")
        return 2 if isinstance(error, UsageError) else 1
    except BrokenPipeError:  # the reader closed the pipe; Python must not try to flush the rest at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        note("interrupted")
        return 130
    return 0
