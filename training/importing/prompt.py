"""Questions at the terminal, for options that were not passed."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from training.errors import ImportRefused
from training.importing.options import ImageShape, parse_image

Ask = Callable[[str, str, Sequence[str]], Any]
"""Takes the name of an option, a question and the allowed answers (any if empty), and returns one answer, a string.

Raises ImportRefused if there is no terminal to ask at."""


def ask(option: str, question: str, allowed: Sequence[str]) -> str:
    """Ask at the terminal until the answer is one of `allowed`. An empty `allowed` accepts any answer.

    Raises:
        ImportRefused: standard input is not a terminal, or it ended.
    """
    if not sys.stdin.isatty():
        listed = f": one of {'; '.join(allowed)}" if allowed else ""
        raise ImportRefused(f"pass --{option}: {question[0].lower()}{question[1:]}{listed}")
    while True:
        shown = f"{question} ({'; '.join(allowed)})" if allowed else question
        try:
            answer: str = typer.prompt(shown, err=True).strip()
        except typer.Abort:
            raise ImportRefused(f"--{option} was not answered") from None
        if not allowed or answer in allowed:
            return answer


def ask_image(ask: Ask) -> ImageShape:
    """Ask for the shape of the images."""
    return parse_image(ask("image", "Channels, height and width of the images, such as 3x64x64", ()))
