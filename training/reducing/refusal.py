"""What a reduction is refused with."""

from app.errors import CommandError


class ReductionRefused(CommandError):
    """A bundle whose weights are not reduced; one sentence that says why. Nothing was written."""
