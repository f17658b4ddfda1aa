"""Questions at the terminal, for options that were not passed."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, get_args

import typer

from training.errors import ImportRefused, OpenQuestion
from training.importing.options import RANGES, ImageShape, ImportOptions, Output, PosteriorKind, parse_image

Ask = Callable[[str, str, Sequence[str]], Any]
"""Takes the name of an option, a question and the allowed answers (any if empty), and returns one answer, a string.

Raises OpenQuestion if there is no terminal to ask at."""

Question = tuple[str, str, Sequence[str]]
"""Arguments of an `Ask`."""
IMAGE: Question = ("image", "Channels, height and width of the images, such as 3x64x64", ())
OUTPUT: Question = ("output", "The decoder's output", get_args(Output))
RANGE: Question = (
    "range",
    "The values of black and white that the encoder was trained with",
    [str(known) for known in RANGES],
)
POSTERIOR: Question = ("posterior", "What the encoder returns as the spread", get_args(PosteriorKind))


class Collector:
    """An `Ask` that collects the questions that stay open, and gives None as their answers."""

    def __init__(self, ask: Ask) -> None:
        self._ask, self._open = ask, list[OpenQuestion]()

    def __call__(self, option: str, question: str, allowed: Sequence[str]) -> Any:
        return self.attempt(self._ask, option, question, allowed)

    def attempt(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function that may raise OpenQuestion: its answer then is None."""
        try:
            return function(*arguments)
        except OpenQuestion as error:
            self._open.append(error)
            return None

    def parsed(self, parse: Callable[[str], Any], question: Question) -> Any:
        """Ask a question whose answer is to be parsed."""
        answer = self(*question)
        return None if answer is None else parse(answer)

    def check(self) -> None:
        """Raise if a question stayed open.

        Raises:
            ImportRefused: the message has all open questions.
        """
        if self._open:
            raise ImportRefused(f"pass {', and '.join(error.question for error in self._open)}")


def ask(option: str, question: str, allowed: Sequence[str]) -> str:
    """Ask at the terminal until the answer is one of `allowed`. An empty `allowed` accepts any answer.

    Raises:
        ImportRefused: input ended.
        OpenQuestion: standard input is not a terminal.
    """
    if not sys.stdin.isatty():
        raise OpenQuestion(_sentence(option, question, allowed))
    while True:
        shown = f"{question} ({'; '.join(allowed)})" if allowed else question
        try:
            answer: str = typer.prompt(shown, err=True).strip()
        except typer.Abort:
            raise ImportRefused(f"--{option} was not answered") from None
        if not allowed or answer in allowed:
            return answer


def _sentence(option: str, question: str, allowed: Sequence[str]) -> str:
    listed = f": one of {'; '.join(allowed)}" if allowed else ""
    return f"--{option}: {question[0].lower()}{question[1:]}{listed}"


def ask_image(ask: Ask, options: ImportOptions) -> ImageShape:
    """Ask for the shape of the images, before the model can be exported.

    Raises:
        ImportRefused: there is no terminal to ask at. The message has the questions, too, that may be open later.
    """
    try:
        return parse_image(ask(*IMAGE))
    except OpenQuestion as error:
        later = [_sentence(*one) for one in (POSTERIOR, OUTPUT, RANGE) if getattr(options, one[0]) is None]
        more = f"; and unless the exported model shows them, {', and '.join(later)}" if later else ""
        raise ImportRefused(f"{error}{more}") from None
