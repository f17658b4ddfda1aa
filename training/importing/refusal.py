"""What an import is refused with."""

from app.errors import CommandError


class ImportRefused(CommandError):
    """A model that is not imported; one sentence that says what is wrong and where. No bundle was written."""
