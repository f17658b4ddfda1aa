"""Errors that end a training command. Each message is one sentence for the user of the command line."""

from app.errors import CommandError


class RecipeError(CommandError):
    """A recipe that cannot be used; the message names the file and the key."""


class DataError(CommandError):
    """A data set that is missing or malformed; the message names the file."""


class ParityError(CommandError):
    """A graph whose outputs differ from its source's; the message names the tensor."""


class ImportRefused(CommandError):
    """A foreign model that cannot be imported; the message says what is wrong and where. No bundle was written."""


class OpenQuestion(ImportRefused):
    """An option of an import that must be passed, because there is no terminal to ask at."""

    def __init__(self, question: str) -> None:
        super().__init__(f"pass {question}")
        self.question = question
        """The option's name, and what it means."""


class ReductionRefused(CommandError):
    """A bundle whose weights cannot be reduced; the message says why. No bundle was written."""
