"""Where a request's time goes. Stdlib only."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Timing:
    """Where the time of a request's rows went, in seconds, added up over the graphs that it runs."""

    queue: float = 0.0
    """Until the first of them was taken,"""
    inference: float = 0.0
    """and from then until the last was done."""


_current: ContextVar[Timing | None] = ContextVar("timing", default=None)


def timed() -> Timing:
    """A new timing, to which is added from now on what the rows of the request in this context wait and take."""
    timing = Timing()
    _current.set(timing)
    return timing


def current() -> Timing | None:
    """The timing of the request in this context; None outside of one."""
    return _current.get()
