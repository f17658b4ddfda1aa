"""The errors of the training package that a person can correct. Each message is one sentence: what is wrong, and where.

`python -m training` prints them without a traceback, and exits with status 1.
"""

from app.errors import CommandError


class ImportRefused(CommandError):
    """A foreign model cannot be imported. No bundle was written."""


class ReductionRefused(CommandError):
    """The weights of a bundle cannot be reduced. No bundle was written."""
