"""What is in a zip file of torch's, and whether torch would unpickle parts of it: looked at before torch does.

That makes no program harmless: torch evaluates the expressions and guards that are written in it.
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

Kind = Literal["torchscript", "program", "weights"]

HARMLESS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|models/\w+\.json|extra/.*"
    r"|data/(weights|constants)/(\w+_config\.json|(weight|tensor)_\d+)"
)
"""Members of a program that torch reads without unpickling."""
SAMPLES = re.compile(r"data/sample_inputs/\w+\.pt")


def kind_of(path: Path) -> Kind | None:
    """What a file is, by its members; None if it is no zip file of torch's."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = {_below(name) for name in archive.namelist()}
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return "torchscript"
    if any(name.startswith("models/") and name.endswith(".json") for name in names):
        return "program"
    return "weights" if "data.pkl" in names else None


def check_program(content: bytes, name: str) -> None:
    """Refuse a program of which torch would unpickle more than tensors.

    Raises:
        ImportRefused: there is such a part, or one that nobody knows.
    """
    refused = ImportRefused(f"{name} holds a pickle or another part that is not opened: export and save it anew")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.namelist():
            part = _below(member)
            is_config = part.endswith("_config.json")
            if SAMPLES.fullmatch(part):
                _check_pickle(archive.read(member), refused)
            elif not HARMLESS.fullmatch(part) or (is_config and not _is_plain(archive.read(member))):
                raise refused


def _below(member: str) -> str:
    """A member's name without the folder that everything lies in."""
    return member.partition("/")[2]


def _check_pickle(content: bytes, refused: ImportRefused) -> None:
    """Torch would fall back on a full unpickling where this one fails."""
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
