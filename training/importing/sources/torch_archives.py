"""Inspect torch's zip files before torch opens them: their format, and whether torch would unpickle parts of them.

A program that passes is still code: torch evaluates the expressions and guards that it contains.
"""

import io
import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any, Literal

import torch

from training.errors import ImportRefused

ArchiveFormat = Literal["torchscript", "program", "weights"]

HARMLESS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|models/\w+\.json|extra/.*"
    r"|data/(weights|constants)/(\w+_config\.json|(weight|tensor)_\d+)"
)
"""Members of a program that torch reads without unpickling."""
SAMPLE_INPUTS = re.compile(r"data/sample_inputs/\w+\.pt")


def format_of(path: Path) -> ArchiveFormat | None:
    """Format of a file by the members of its archive; None if torch did not write it."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = {_without_root(name) for name in archive.namelist()}
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return "torchscript"
    if any(name.startswith("models/") and name.endswith(".json") for name in names):
        return "program"
    return "weights" if "data.pkl" in names else None


def check_program(content: bytes, name: str) -> None:
    """Refuse a program in which torch would unpickle more than tensors.

    Raises:
        ImportRefused: a member holds more than tensors, or is unknown.
    """
    refused = ImportRefused(f"{name} holds a pickle or another part that is not opened: export and save it again")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.namelist():
            part = _without_root(member)
            is_config = part.endswith("_config.json")
            if SAMPLE_INPUTS.fullmatch(part):
                _check_pickle(archive.read(member), refused)
            elif not HARMLESS.fullmatch(part) or (is_config and not _is_plain(archive.read(member))):
                raise refused


def _without_root(member: str) -> str:
    """Name of a member without the folder that contains all members."""
    return member.partition("/")[2]


def _check_pickle(content: bytes, refused: ImportRefused) -> None:
    """Load with `weights_only`: if that fails, torch.export.load would fall back to unpickling everything."""
    try:
        torch.load(io.BytesIO(content), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        raise refused from error


def _is_plain(config: bytes) -> bool:
    """Whether every entry is a plain tensor."""
    try:
        entries: dict[str, Any] = json.loads(config)["config"]
        return all(
            entry["use_pickle"] is False and re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"])
            for entry in entries.values()
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
