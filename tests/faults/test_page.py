"""Faults that the server survives, each caused by a test.

- signals that stop it, under load: `test_stop.py`
- processes that are killed or cannot start: `test_processes.py`, and of a killed worker `tests/live/test_workers.py`
- clients that go away or dawdle: `test_clients.py`, and their limits in `tests/live/test_connections.py`
- full disks: `test_disk.py`
- models that fail, give NaN or hang: `test_models.py`, made by `bundles.py`
- bundles that are broken or change while they are read: `test_bundles.py`; under load in `tests/live/test_reload.py`
- far too many requests: `test_overload.py`, with `bench/overload.py`
- everything at once: `test_soak.py`, with `bench/soak.py`

docs/resilience.md says what the server does in each case; here is looked whether it names what there is.
"""

import re
from pathlib import Path

import pytest

from app.server.workers import GRACE_SECONDS, MAX_DELAY_SECONDS
from app.settings import Settings
from tests.conftest import ROOT
from tests.repo.test_docs import rows

PAGE = (ROOT / "docs/resilience.md").read_text()


@pytest.mark.parametrize("row", rows(PAGE, "Faults")[2:], ids=lambda row: row[0])
def test_each_fault_is_caused_by_the_test_that_is_named(row: list[str]) -> None:
    path, _, name = row[2].strip("`").partition("::")
    assert f"def {name}(" in (ROOT / path).read_text()


def test_every_module_of_tests_has_its_fault() -> None:
    named = set(re.findall(r"`tests/faults/(\w+\.py)::", PAGE))
    assert named == {path.name for path in Path(__file__).parent.glob("test_*.py")} - {"test_page.py"}


def test_numbers_are_as_they_are_said() -> None:
    for name in re.findall(r"`VAE_(\w+)` \(", PAGE):
        assert f"`VAE_{name}` ({Settings.model_fields[name.lower()].default})" in PAGE
    assert f"{GRACE_SECONDS:g} s after that" in PAGE
    assert f"up to {MAX_DELAY_SECONDS:g} s" in PAGE
    assert "Retry-After: 1" in PAGE
