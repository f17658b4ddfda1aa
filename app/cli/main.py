"""The commands put together: their help, with examples, and what happens to their errors."""

import inspect
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.markup import escape

from app import __version__
from app.cli.commands import bench, decode, encode, interpolate, key, models, reconstruct, sample, score, serve
from app.cli.terminal import note
from app.errors import CommandError, VaeError

MODULES = {
    "The server": (serve, models, key, bench),
    "A model": (sample, encode, decode, reconstruct, interpolate, score),
}
"""One module a command, by the panel of the help that it is in; the command has its module's name."""

FIRST_SESSION = (
    ("In one terminal, start the server", "vaeserve serve"),
    ("In another, see what it has", "vaeserve models"),
    ("Draw 64 digits into one picture", "vaeserve sample -n 64 --seed 7 --output samples.png"),
    ("And one by one into a folder", "vaeserve sample -n 64 --seed 7 --output digits/"),
    ("Encode a folder", "vaeserve encode digits/ --output latents.npz"),
    ("Walk from three to eight", "vaeserve interpolate label:3 label:8 --output walk.gif"),
    ("The same without a server", "vaeserve sample -n 64 --seed 7 --bundle models/mnist/2 --output samples.png"),
)
Examples = tuple[tuple[str, str], ...]


def _epilog(heading: str, examples: Examples) -> str:
    shown = [f"  [dim]{escape(text)}:[/]\n  $ [bold]{escape(line)}[/]" for text, line in examples]
    return f"[bold]{heading}[/]\n\n" + "\n\n".join(shown)


def _flowing(function: Callable[..., None]) -> list[str]:
    """The paragraphs of a docstring, each one line, which wraps as the terminal has it."""
    return [escape(text.replace("\n", " ")) for text in (inspect.getdoc(function) or "").split("\n\n")]


def vaeserve(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Variational autoencoders from the command line: serve models, sample from them, encode, decode, interpolate.

    Commands ask a running server (--url, or the variable VAE_URL), or work on a bundle without one (--bundle); the same
    seed gives the same result both ways. `vaeserve COMMAND --help` shows examples.
    """
    if version:
        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help(), end="")


def _assemble() -> typer.Typer:
    """The command with all commands in it."""
    app = typer.Typer(rich_markup_mode="rich")
    epilog, text = _epilog("A first session", FIRST_SESSION), "\n\n".join(_flowing(vaeserve))
    app.callback(invoke_without_command=True, help=text, epilog=epilog)(vaeserve)
    for panel, modules in MODULES.items():
        for module in modules:
            name = module.__name__.rpartition(".")[2]
            function, epilog = getattr(module, name), _epilog("Examples", module.EXAMPLES)
            first, *more = _flowing(function)
            text = "\n\n".join([first, *more])
            app.command(name, help=text, short_help=first, epilog=epilog, rich_help_panel=panel)(function)
    return app


app = _assemble()


def main(arguments: list[str] | None = None) -> None:
    """Run a command, and exit: 0, or 1 where it failed, 2 where it was typed wrongly, 130 at Ctrl-C."""
    sys.exit(_status(sys.argv[1:] if arguments is None else arguments))


def _status(arguments: list[str]) -> int:
    """Run a command; an error is one sentence on stderr."""
    try:
        status = app(arguments, prog_name="vaeserve", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        path = getattr(getattr(error, "ctx", None), "command_path", "vaeserve")
        note(f"error: {error.format_message()} See `{path} --help`.")
        return 2
    except VaeError as error:
        note(f"error: {error}")
        return error.exit_status if isinstance(error, CommandError) else 1
    except BrokenPipeError:  # whoever read has seen enough; what is left in the buffer must not be tried again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if status == 130:
        note("interrupted")
    return int(status or 0)
