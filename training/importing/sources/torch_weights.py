"""Files of weights for a torch class: safetensors, state dicts, checkpoints."""

import pickle
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from training.errors import ImportRefused
from training.importing.source import SAVE_WEIGHTS

STATE_KEYS = ("state_dict", "model_state_dict", "model", "model_state")
"""Keys under which checkpoints store the weights; the first that exists counts."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, or of a torch file that holds nothing else.

    Raises:
        ImportRefused: the file is absent, holds no weights, or is a pickle that holds more than tensors.
    """
    if not path.is_file():
        raise ImportRefused(f"{path} is absent, or is not a file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # unusual pickle protocols
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ImportRefused(
            f"{path.name} is a pickle that holds more than weights, which is not opened. If you trust it, save its "
            f"weights alone: {SAVE_WEIGHTS.format(str(path))}"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ImportRefused(f"{path.name} is not a file of weights") from error
    return _state(content, path.name)


def _state(content: Any, name: str) -> dict[str, Tensor]:
    """The state dict itself, or the one inside a checkpoint."""
    if _is_state(content):
        return dict(content)
    states = {key: part for key, part in content.items() if _is_state(part)} if isinstance(content, dict) else {}
    key = next((key for key in (*STATE_KEYS, *states) if key in states), None)
    if key is None:
        raise ImportRefused(f"{name} holds no weights by name")
    return dict(states[key])


def _is_state(content: Any) -> bool:
    return isinstance(content, dict) and bool(content) and all(isinstance(part, Tensor) for part in content.values())


def load_weights(model: nn.Module, files: Sequence[tuple[str, dict[str, Tensor]]]) -> None:
    """Load the weights of one or several files, each with its name, into a model.

    Leading parts that all names of a file share are removed if the model lacks them. A file may hold a submodule alone.

    Raises:
        ImportRefused: the weights do not fit, or fit several submodules; the message names one of them.
    """
    expected, found = model.state_dict(), dict[str, Tensor]()
    for file, state in files:
        found |= _place(file, state, {name: tensor for name, tensor in expected.items() if name not in found}, model)
    wrong = sorted(set(expected) ^ set(found)) or [
        key for key, tensor in found.items() if tensor.shape != expected[key].shape
    ]
    if wrong:
        names = " and ".join(name for name, _ in files)
        do = "does" if len(files) == 1 else "do"
        raise ImportRefused(f"{names} {do} not have `{wrong[0]}` as the class has it; {len(wrong)} in all do not fit")
    model.load_state_dict(found)


def _place(file: str, state: dict[str, Tensor], wanted: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The weights of one file under the model's names; those of them that fit best if none fit all.

    Raises:
        ImportRefused: they fit several submodules, and neither the file's name nor their prefix names one of these.
    """
    stripped, prefix = [state], ""
    while len({key.partition(".")[0] for key in state}) == 1 and all("." in key for key in state):
        prefix += next(iter(state)).partition(".")[0] + "."
        state = {key.partition(".")[2]: tensor for key, tensor in state.items()}
        stripped.append(state)
    fitting = next((names for names in stripped if names.keys() <= wanted.keys()), None)
    if fitting is not None:
        return fitting
    placements = dict[frozenset[str], tuple[str, dict[str, Tensor]]]()
    for path, module in model.named_modules():
        shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
        for names in stripped:
            placed = {f"{path}.{name}": tensor for name, tensor in names.items()}
            if {name: tensor.shape for name, tensor in names.items()} == shapes and placed.keys() <= wanted.keys():
                placements.setdefault(frozenset(placed), (path, placed))
    if placements:
        submodules = dict(placements.values())
        return submodules[_choose_submodule(list(submodules), file, f"{prefix} {file.rpartition('.')[0]}")]
    return max(reversed(stripped), key=lambda names: len(names.keys() & wanted.keys()))


def _choose_submodule(paths: list[str], file: str, text: str) -> str:
    """The only submodule, or the only one that a text names.

    Raises:
        ImportRefused: the text names none or several.
    """
    parts = {path: set(path.split(".")) for path in paths}
    shared = set.intersection(*parts.values())
    named = [path for path in paths if any(_names(text, part) for part in parts[path] - shared)]
    chosen = paths if len(paths) == 1 else named
    if len(chosen) != 1:
        raise ImportRefused(
            f"the weights in {file} fit {' and '.join(paths)}: rename the file after the one that they belong to"
        )
    return chosen[0]


def _names(text: str, part: str) -> bool:
    """Whether a text has a name as a whole word. A number names nothing: files have numbers of epochs."""
    pattern = rf"(?<![a-z0-9]){re.escape(part)}(?![a-z0-9])"
    return not part.isdecimal() and re.search(pattern, text, re.IGNORECASE) is not None
