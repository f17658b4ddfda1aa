"""A further architecture is one file and one row in the table: it trains, is exported, and its options are checked."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.bundle.files import read_bundle
from app.inference.session import Session
from tests.conftest import ROOT
from tests.processes import PATIENCE

FILE = '''
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from training.architectures.shape import NetShape


class FlatOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)
    name: Literal["flat"]
    width: int = 8
    """Units of the one hidden layer."""

    def build(self, shape: NetShape) -> tuple[nn.Module, nn.Module]:
        pixels = shape.size**2
        decoder = nn.Sequential(
            nn.Linear(shape.latent, shape.outputs * pixels), nn.Unflatten(1, (shape.outputs, shape.size, shape.size))
        )
        return FlatEncoder(self, shape), decoder


class FlatEncoder(nn.Module):
    def __init__(self, options: FlatOptions, shape: NetShape) -> None:
        super().__init__()
        self.hidden = nn.Linear(shape.channels * shape.size**2, options.width)
        self.heads = nn.ModuleList(nn.Linear(options.width, shape.latent) for _ in range(shape.heads))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        hidden = torch.relu(self.hidden(images.flatten(1)))
        return tuple(head(hidden) for head in self.heads)
'''

RECIPE = """
name = "flat"
version = 1
description = "A net of one hidden layer."
latent = 2
[data]
dataset = "npz"
path = "tiny.npz"
[architecture]
name = "flat"
{option} = 4
[training]
epochs = 1
batch_size = 300
"""

PROGRAM = """
import sys
from training.__main__ import main

for command, recipe in (("train", "right.toml"), ("export", "right.toml"), ("train", "wrong.toml")):
    sys.argv = ["training", command, recipe, *sys.argv[-6:]]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""


@pytest.mark.slow(reason="trains and exports a net of its own")
def test_an_architecture_is_one_file_and_one_row(data_dir: Path, tmp_path: Path) -> None:
    package = tmp_path / "training"
    shutil.copytree(ROOT / "training", package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "architectures" / "flat.py").write_text(FILE)
    table = package / "architectures" / "__init__.py"
    text = table.read_text()
    assert text.count("MlpOptions | ") == 1
    text = text.replace("MlpOptions | ", "MlpOptions | FlatOptions | ")
    line = "from training.architectures.flat import FlatOptions\n"
    table.write_text(text.replace("from training", f"{line}from training", 1))

    for name, option in (("right", "width"), ("wrong", "widths")):
        (tmp_path / f"{name}.toml").write_text(RECIPE.format(option=option))
    folders = ["--data-dir", str(data_dir), "--runs", str(tmp_path / "runs"), "--models", str(tmp_path / "models")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", PROGRAM, *folders]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE)

    bundle = read_bundle(tmp_path / "models" / "flat" / "1")
    assert Session(bundle.encoder, name="encoder").outputs == ["mean", "log_std"]
    assert 'name = "flat"\nwidth = 4\n' in (tmp_path / "models" / "flat" / "1" / "recipe.toml").read_text()
    assert done.returncode == 1
    assert "architecture.flat.widths: Extra inputs are not permitted" in done.stderr
