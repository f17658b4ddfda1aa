"""Asking at a terminal for what was not passed; where there is none, the option is named."""

import sys
from collections.abc import Sequence

import typer

from training.errors import ImportRefused


def ask(option: str, words: str, answers: Sequence[str]) -> str:
    """The answer to a question, one of `answers` if there are any.

    Raises:
        ImportRefused: there is no terminal to ask at, or nothing more comes from it.
    """
    if not sys.stdin.isatty():
        listed = f": one of {'; '.join(answers)}" if answers else ""
        raise ImportRefused(f"pass --{option}: {words[0].lower()}{words[1:]}{listed}")
    while True:
        shown = f"{words} ({'; '.join(answers)})" if answers else words
        try:
            answer: str = typer.prompt(shown, err=True).strip()
        except typer.Abort:
            raise ImportRefused(f"--{option} was not answered") from None
        if not answers or answer in answers:
            return answer
