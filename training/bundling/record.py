"""A bundle's training record: the recipe, the log of the epochs, and the report if there is one."""

import csv
import json
import tomllib
from pathlib import Path
from typing import Any

from app.errors import BundleError


def read_recipe(directory: Path) -> dict[str, Any]:
    """Read the bundle's `recipe.toml` without validating it: validation needs torch.

    Raises:
        BundleError: the file is missing, or not TOML.
    """
    path = directory / "recipe.toml"
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} is not TOML: {error}") from error


def read_log(path: Path) -> dict[str, list[float]]:
    """Read the columns of the training's log, by name.

    Raises:
        BundleError: the file is missing, or has no epoch.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error
    if not rows:
        raise BundleError(f"{path} has no epoch")
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def watched(log: dict[str, list[float]]) -> str:
    """The split that was measured after every epoch: `validation` or `test`."""
    return "validation" if "validation/negative_elbo" in log else "test"


def read_report(directory: Path) -> dict[str, Any] | None:
    """The content of `report.json`; None if the bundle has none.

    Raises:
        BundleError: the file exists and is not JSON.
    """
    path = directory / "report.json"
    if not path.exists():
        return None
    try:
        report: dict[str, Any] = json.loads(path.read_text())
    except ValueError as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    return report
