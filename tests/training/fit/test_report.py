"""The report of a run is true."""

import json
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from tests.training.conftest import TINY, Workshop
from tests.training.fit.test_train import columns, read_log
from training.fit.module import VaeModule
from training.fit.report import report_table
from training.fit.train import run_folder

FIELDS = [
    "epochs",
    "epochs_now",
    "seconds",
    "images_per_second",
    "processes",
    "device",
    "precision",
    "parameters",
    "skipped_steps",
    "terms",
    "torch",
]


def read(workshop: Workshop, name: str) -> SimpleNamespace:
    values = json.loads((run_folder(workshop.runs, workshop.recipes[name]) / "report.json").read_text())
    assert list(values) == FIELDS
    return SimpleNamespace(**values)


@pytest.fixture
def workshop(request: pytest.FixtureRequest, trained: Workshop, trained_more: Workshop) -> Workshop:
    return trained if request.param in TINY else trained_more


@pytest.mark.parametrize(
    ("workshop", "name"),
    [(name, name) for name in ("tiny", "tiny-ae", "tiny-iwae", "tiny-early")],
    indirect=["workshop"],
)
def test_a_report_says_what_the_run_did(workshop: Workshop, name: str) -> None:
    recipe, report = workshop.recipes[name], read(workshop, name)
    rows = read_log(run_folder(workshop.runs, recipe))
    assert report.epochs == report.epochs_now == len(rows)
    assert report.seconds > 0
    images = (300 - recipe.data.validation) * len(rows)
    assert report.images_per_second == pytest.approx(images / report.seconds, rel=0.1 / report.seconds + 1e-3)
    assert (report.processes, report.device) == (1, "CPU, 1 thread")
    assert (report.precision, report.torch) == ("32-true", torch.__version__)
    module = VaeModule(recipe, channels=1, size=28)
    assert report.parameters == sum(weight.numel() for weight in module.parameters())
    assert report.skipped_steps == 0
    assert report.terms == {column: float(rows[-1][column]) for column in sorted(columns(recipe))}


def test_a_report_fits_a_terminal(trained: Workshop) -> None:
    report = read(trained, "tiny")
    console = Console(width=80, record=True, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(report_table(vars(report), Path("runs/tiny-1")))
    console.file.close()
    lines = console.export_text().splitlines()
    assert "runs/tiny-1" in lines[0]
    text = {line.split("│")[1].strip(): line.split("│")[2].strip() for line in lines if line.startswith("│")}
    assert text["epochs"] == "3"
    assert text["images per second"] == f"{report.images_per_second:,.1f}"
    assert text["test/negative_elbo"] == f"{report.terms['test/negative_elbo']:.3f} nats"
    assert text["torch"] == torch.__version__
    assert platform.system() == "Linux"
