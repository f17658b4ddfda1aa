"""What is told of the models directory: what became of each bundle, and what a reload changed."""

from dataclasses import dataclass
from typing import Literal

from app.bundle.directory import Key


@dataclass(frozen=True)
class Known:
    """A version of a model that is served or lies in the models directory."""

    name: str
    version: int
    state: Literal["ready", "loading", "unavailable"]
    reason: str
    """Why it is not ready, or not as the directory has it; empty where there is nothing to say."""


@dataclass(frozen=True)
class Reload:
    """What a reload came to: `loaded` and `kept` together are what is served now. Each ascending."""

    loaded: list[Key]
    """New, or changed and replaced."""
    unloaded: list[Key]
    """Gone from the directory."""
    kept: list[Key]
    """Served as before."""
    refused: list[Key]
    """In the directory, but broken; what answered before, if anything did, is among `kept`."""
